package api

import (
	"reflect"
	"strings"
	"time"

	"github.com/sealdesk/sealdesk/internal/audit"
)

// NameResources has the records of the operations, but of those that see to it themselves, name the resources whose IDs the input has, and the
// output when something was changed, so that LookupEvents finds the call by them.
// resource tells what an ID is of; with an ARN of "", of nothing. An ID is the value of
// a member ResourceId, Resources, or of one whose name ends in Id, Ids, ID or IDs.
func NameResources(ops []Operation, resource func(c *Call, id string) audit.Resource) {
	for i := range ops {
		if ops[i].Audit != nil {
			continue
		}
		ops[i].Audit = func(c *Call, in, out any, r *audit.Record) {
			seen := map[string]bool{}
			add := func(id string) {
				if seen[id] {
					return
				}
				seen[id] = true
				if x := resource(c, id); x.ARN != "" {
					r.Resources = append(r.Resources, x)
				}
			}
			eachID(reflect.ValueOf(in), false, add)
			if !r.ReadOnly {
				eachID(reflect.ValueOf(out), false, add)
			}
		}
	}
}

// eachID calls f for the IDs in v; named tells that v is the value of a member for IDs.
func eachID(v reflect.Value, named bool, f func(string)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			eachID(v.Elem(), named, f)
		}
	case reflect.String:
		if named {
			f(v.String())
		}
	case reflect.Slice:
		if k := v.Type().Elem().Kind(); k == reflect.Struct || k == reflect.Pointer || k == reflect.String && named {
			for i := range v.Len() {
				eachID(v.Index(i), named, f)
			}
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			if m := v.Type().Field(i); m.IsExported() {
				eachID(v.Field(i), strings.HasSuffix(strings.ToLower(strings.TrimSuffix(m.Name, "s")), "id") || m.Name == "Resources", f)
			}
		}
	}
}
