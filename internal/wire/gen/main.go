// Command gen writes the tables of package wire: for each service the
// operations with their HTTP bindings, the shapes with their constraints
// (required, min, max, pattern, enum, sensitive), the errors with their wire
// code and HTTP status and, where wire and Go disagree, the member names.
//
// Three sources, each better at one thing:
//
//   - The API models in the module github.com/aws/aws-sdk-go (models/apis),
//     reachable through the Go module proxy, frozen in 2025-07.
//   - With -botocore, the same models as they ship with botocore (its
//     botocore/data folder), which are kept up to date. A service found there
//     is taken from there; ds-data is found nowhere else.
//   - The modules of aws-sdk-go-v2 the server is built with: names of all
//     operations and, for EC2, the wire names of all members, read from its
//     serializers and deserializers, so that the table fits the structs.
//
// Run it through "BOTOCORE_DATA=…/botocore/data go generate ./internal/wire"; the
// format it writes is described in the package documentation of wire.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode"
)

type model struct {
	Metadata   map[string]any        `json:"metadata"`
	Operations map[string]*operation `json:"operations"`
	Shapes     map[string]*shape     `json:"shapes"`
}

type operation struct {
	HTTP struct {
		Method       string `json:"method"`
		RequestURI   string `json:"requestUri"`
		ResponseCode int    `json:"responseCode"`
	} `json:"http"`
	Input, Output *ref
	AuthType      string `json:"authtype"`
	Auth          []string
}

type ref struct {
	Shape         string
	Location      string `json:"location"`
	LocationName  string `json:"locationName"`
	QueryName     string `json:"queryName"`
	Documentation string `json:"documentation"`

	in, out string // EC2 names read from the SDK
}

type shape struct {
	Type       string
	Members    map[string]*ref
	Required   []string
	Member     *ref
	Key, Value *ref
	Min, Max   *float64
	Pattern    string
	Enum       []string
	Sensitive  bool
	Exception  bool
	Fault      bool
	Union      bool
	Payload    string
	Error      *struct {
		Code           string
		HTTPStatusCode int `json:"httpStatusCode"`
	}
	Documentation string
}

type source struct {
	name  string // of the table
	v1    string // folder in aws-sdk-go/models/apis
	boto  string // folder in botocore/data
	sdkV2 string // module under aws-sdk-go-v2/service
}

var sources = []source{
	{"kms", "kms/2014-11-01", "kms/2014-11-01", "kms"},
	{"iam", "iam/2010-05-08", "iam/2010-05-08", "iam"},
	{"sts", "sts/2011-06-15", "sts/2011-06-15", "sts"},
	{"ec2", "ec2/2016-11-15", "ec2/2016-11-15", "ec2"},
	{"ebs", "ebs/2019-11-02", "ebs/2019-11-02", "ebs"},
	{"cloudtrail", "cloudtrail/2013-11-01", "cloudtrail/2013-11-01", "cloudtrail"},
	{"workspaces", "workspaces/2015-04-08", "workspaces/2015-04-08", "workspaces"},
	{"ds", "ds/2015-04-16", "ds/2015-04-16", "directoryservice"},
	{"ds-data", "", "ds-data/2023-05-31", ""},
	{"rbin", "rbin/2021-06-15", "rbin/2021-06-15", "rbin"},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("gen: ")
	boto := flag.String("botocore", "", "folder botocore/data of an installed botocore; newer models than the frozen module's")
	mainModule := flag.String("main", "../../..", "folder of the main module, whose SDK versions count")
	out := flag.String("out", "../tables", "folder the tables are written to")
	only := flag.String("only", "", "write this service only")
	dsdata := flag.String("dsdata", "../dsdata", "folder of package dsdata")
	frozen := flag.Bool("frozen", false, "without -botocore: take all from the frozen models, which lack what came after 2025-07")
	flag.Parse()
	if *boto == "" && !*frozen {
		log.Fatal("name the models: -botocore path/to/site-packages/botocore/data (pip install botocore), or -frozen for those of aws-sdk-go v1")
	}

	v1 := moduleDir(".", "github.com/aws/aws-sdk-go")
	for _, src := range sources {
		if *only != "" && src.name != *only {
			continue
		}
		m, from, err := load(src, v1, *boto)
		if err != nil {
			log.Printf("%s: %v; its table stays as it is", src.name, err)
			continue
		}
		g := &generator{src: src, m: m}
		if src.sdkV2 != "" {
			dir := moduleDir(*mainModule, "github.com/aws/aws-sdk-go-v2/service/"+src.sdkV2)
			g.addOperations(dir)
			if src.name == "ec2" {
				g.ec2Names(dir)
			}
			from += ", aws-sdk-go-v2 " + filepath.Base(dir)
		}
		path := filepath.Join(*out, src.name+".txt")
		if err := os.WriteFile(path, g.table(from), 0o644); err != nil {
			log.Fatal(err)
		}
		log.Printf("%s: %d operations, %d shapes, from %s", path, len(m.Operations), len(m.Shapes), from)
		if src.name == "ds-data" {
			g.structs(*dsdata, from)
		}
	}
}

func moduleDir(dir, module string) string {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		log.Fatalf("find module %s: %v", module, err)
	}
	return strings.TrimSpace(string(b))
}

func load(src source, v1, boto string) (*model, string, error) {
	var raw []byte
	var from string
	if boto != "" {
		p := filepath.Join(boto, src.boto, "service-2.json")
		if b, err := os.ReadFile(p); err == nil {
			raw = b
		} else if f, err := os.Open(p + ".gz"); err == nil {
			defer f.Close()
			z, err := gzip.NewReader(f)
			if err != nil {
				return nil, "", fmt.Errorf("read %s.gz: %w", p, err)
			}
			if raw, err = io.ReadAll(z); err != nil {
				return nil, "", fmt.Errorf("read %s.gz: %w", p, err)
			}
		}
		from = "botocore " + botocoreVersion(boto)
	}
	if raw == nil {
		if src.v1 == "" {
			return nil, "", fmt.Errorf("only botocore has its model (-botocore)")
		}
		b, err := os.ReadFile(filepath.Join(v1, "models/apis", src.v1, "api-2.json"))
		if err != nil {
			return nil, "", err
		}
		raw, from = b, filepath.Base(v1)
	}
	m := new(model)
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, "", fmt.Errorf("parse the model of %s: %w", src.name, err)
	}
	return m, from, nil
}

func botocoreVersion(data string) string {
	b, err := os.ReadFile(filepath.Join(data, "..", "__init__.py"))
	if err != nil {
		return "of unknown version"
	}
	if s := regexp.MustCompile(`__version__ = '([^']+)'`).FindSubmatch(b); s != nil {
		return string(s[1])
	}
	return "of unknown version"
}

type generator struct {
	src   source
	m     *model
	items map[string]string // EC2 lists whose elements are not called item in replies
}

// addOperations adds the operations that the SDK has and the model has not:
// only their names are known.
func (g *generator) addOperations(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "api_op_*.go"))
	for _, f := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "api_op_"), ".go")
		if strings.HasSuffix(name, "_test") {
			continue
		}
		if g.m.Operations[name] == nil {
			op := new(operation)
			op.HTTP.Method, op.HTTP.RequestURI = "POST", "/"
			op.Input, op.Output = &ref{Shape: name + "Input"}, &ref{Shape: name + "Output"}
			g.m.Operations[name] = op
		}
	}
}

var (
	reSerFunc   = regexp.MustCompile(`^func awsEc2query_serialize(?:Op)?Document\w+\(v \*(?:types\.)?(\w+), `)
	reSerField  = regexp.MustCompile(`^\tif v\.(\w+) != nil|^\tif len\(v\.(\w+)\)|^\tif v\.(\w+) !=|^\tif v\.(\w+) \{`)
	reSerKey    = regexp.MustCompile(`object\.(?:Flat)?Key\("([^"]+)"\)`)
	reDeserFunc = regexp.MustCompile(`^func awsEc2query_deserialize(?:Op)?Document\w+\(v \*\*(?:types\.)?(\w+), `)
	reDeserCase = regexp.MustCompile(`strings\.EqualFold\("([^"]+)", t\.Name\.Local\)`)
	reDeserList = regexp.MustCompile(`^func awsEc2query_deserializeDocument(\w+)\(v \*\[\]`)
	reDeserSet  = regexp.MustCompile(`\bsv\.(\w+)`)
)

// ec2Names reads the names of EC2 members from the serializers of the SDK.
func (g *generator) ec2Names(dir string) {
	in, out := map[string]map[string]string{}, map[string]map[string]string{}
	put := func(m map[string]map[string]string, typ, field, name string) {
		if m[typ] == nil {
			m[typ] = map[string]string{}
		}
		if _, ok := m[typ][field]; !ok {
			m[typ][field] = name
		}
	}
	scan(filepath.Join(dir, "serializers.go"), func() func(string) {
		var typ, field string
		return func(line string) {
			if s := reSerFunc.FindStringSubmatch(line); s != nil {
				typ, field = s[1], ""
			} else if strings.HasPrefix(line, "func ") {
				typ = ""
			} else if typ == "" {
			} else if s := reSerField.FindStringSubmatch(line); s != nil {
				field = s[1] + s[2] + s[3] + s[4]
			} else if s := reSerKey.FindStringSubmatch(line); s != nil {
				f := field
				if f == "" {
					f = s[1]
				}
				put(in, typ, f, s[1])
			}
		}
	}())
	scan(filepath.Join(dir, "deserializers.go"), func() func(string) {
		var typ, name, list string
		g.items = map[string]string{}
		return func(line string) {
			if s := reDeserList.FindStringSubmatch(line); s != nil {
				list = s[1]
			} else if s := reDeserCase.FindStringSubmatch(line); s != nil && list != "" {
				if s[1] != "item" {
					g.items[list] = s[1]
				}
				list = ""
			}
			if s := reDeserFunc.FindStringSubmatch(line); s != nil {
				typ, name = s[1], ""
			} else if strings.HasPrefix(line, "func ") {
				typ = ""
			} else if typ == "" {
			} else if s := reDeserCase.FindStringSubmatch(line); s != nil {
				name = s[1]
			} else if s := reDeserSet.FindStringSubmatch(line); s != nil && name != "" {
				put(out, typ, s[1], name)
				name = ""
			}
		}
	}())
	shapeOf := map[string]string{}
	for name, op := range g.m.Operations {
		if op.Input != nil {
			shapeOf[name+"Input"] = op.Input.Shape
		}
		if op.Output != nil {
			shapeOf[name+"Output"] = op.Output.Shape
		}
	}
	overlay := func(names map[string]map[string]string, set func(*ref, string)) {
		for typ, fields := range names {
			sn := shapeOf[typ]
			if sn == "" {
				sn = typ
			}
			sh := g.m.Shapes[sn]
			if sh == nil {
				sh = &shape{Type: "structure", Members: map[string]*ref{}}
				g.m.Shapes[sn] = sh
			}
			for field, name := range fields {
				m := sh.Members[field]
				if m == nil {
					m = sh.Members[lowerFirst(field)]
				}
				if m == nil {
					m = new(ref)
					sh.Members[field] = m
				}
				set(m, name)
			}
		}
	}
	overlay(in, func(r *ref, n string) { r.in = n })
	overlay(out, func(r *ref, n string) { r.out = n })
	log.Printf("ec2: names of %d request and %d reply structs read from the SDK", len(in), len(out))
}

func scan(path string, line func(string)) {
	f, err := os.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line(s.Text())
	}
	if err := s.Err(); err != nil {
		log.Fatalf("read %s: %v", path, err)
	}
}

func sorted[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return string(unicode.ToUpper(rune(s[0]))) + s[1:]
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return string(unicode.ToLower(rune(s[0]))) + s[1:]
}

func num(f *float64) string {
	if f == nil {
		return ""
	}
	return strconv.FormatFloat(*f, 'f', -1, 64)
}

// plain tells whether the shape says nothing that the Go type does not say.
func (g *generator) plain(name string) bool {
	s := g.m.Shapes[name]
	if s == nil {
		return true
	}
	switch s.Type {
	case "structure":
		return false
	case "list":
		return s.Min == nil && s.Max == nil && !s.Sensitive && g.plain(s.Member.Shape) && g.items[name] == ""
	case "map":
		return s.Min == nil && s.Max == nil && !s.Sensitive && g.plain(s.Key.Shape) && g.plain(s.Value.Shape)
	}
	return s.Min == nil && s.Max == nil && !s.Sensitive && s.Pattern == "" && len(s.Enum) == 0
}

func (g *generator) ref(name string) string {
	if g.plain(name) {
		return "-"
	}
	return name
}

func clean(s string) string {
	if strings.ContainsAny(s, "\t\n\r") {
		s = strings.NewReplacer("\t", `\t`, "\n", `\n`, "\r", `\r`).Replace(s)
	}
	return s
}

func (g *generator) table(from string) []byte {
	var b bytes.Buffer
	row := func(cols ...string) {
		for len(cols) > 2 && cols[len(cols)-1] == "" {
			cols = cols[:len(cols)-1]
		}
		for i, c := range cols {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(clean(c))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "# Code generated by internal/wire/gen; DO NOT EDIT. From %s.\n", from)
	// Shapes that nothing reaches are left out.
	reach := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		s := g.m.Shapes[name]
		if s == nil || reach[name] {
			return
		}
		reach[name] = true
		for _, m := range s.Members {
			visit(m.Shape)
		}
		for _, r := range []*ref{s.Member, s.Key, s.Value} {
			if r != nil {
				visit(r.Shape)
			}
		}
	}
	for _, name := range sorted(g.m.Operations) {
		op := g.m.Operations[name]
		in, out := "-", "-"
		if op.Input != nil {
			in = op.Input.Shape
			visit(in)
		}
		if op.Output != nil {
			out = op.Output.Shape
			visit(out)
		}
		flags := ""
		if op.AuthType == "none" {
			flags = "noauth"
		}
		for _, a := range op.Auth {
			if a == "smithy.api#noAuth" {
				flags = "noauth"
			}
		}
		code := op.HTTP.ResponseCode
		if code == 0 {
			code = 200
		}
		row("O", name, in, out, op.HTTP.Method, op.HTTP.RequestURI, strconv.Itoa(code), flags)
	}
	for _, name := range sorted(g.m.Shapes) {
		s := g.m.Shapes[name]
		if s.Exception || s.Error != nil {
			code, status := name, 400
			if s.Fault {
				status = 500
			}
			if s.Error != nil {
				if s.Error.Code != "" {
					code = s.Error.Code
				}
				if s.Error.HTTPStatusCode != 0 {
					status = s.Error.HTTPStatusCode
				}
			}
			row("E", name, code, strconv.Itoa(status))
			visit(name)
		}
	}
	for _, name := range sorted(g.m.Shapes) {
		// EC2 structs that only the SDK knows are reached by their Go type.
		s := g.m.Shapes[name]
		if !reach[name] && !(g.src.name == "ec2" && s.Type == "structure") {
			continue
		}
		if s.Type != "structure" && g.plain(name) {
			continue
		}
		sens := ""
		if s.Sensitive {
			sens = "s"
		}
		switch s.Type {
		case "structure":
			flags := sens
			if s.Union {
				flags += "u"
			}
			row("T", name, s.Payload, flags)
			required := map[string]bool{}
			for _, r := range s.Required {
				required[r] = true
			}
			for _, mn := range sorted(s.Members) {
				g.member(row, mn, s.Members[mn], required[mn])
			}
		case "list":
			row("L", name, g.ref(s.Member.Shape), num(s.Min), num(s.Max), sens, g.items[name])
		case "map":
			row("H", name, g.ref(s.Key.Shape), g.ref(s.Value.Shape), num(s.Min), num(s.Max), sens)
		default:
			row("V", name, s.Type, num(s.Min), num(s.Max), sens, strings.Join(s.Enum, ","), s.Pattern)
		}
	}
	return b.Bytes()
}

func (g *generator) member(row func(...string), name string, m *ref, required bool) {
	req := ""
	if required {
		req = "r"
	}
	var binds string
	switch m.Location {
	case "header":
		binds = "h:" + m.LocationName
	case "querystring":
		binds = "q:" + m.LocationName
	case "uri":
		binds = "u:" + m.LocationName
	case "statusCode":
		binds = "s:"
	case "":
		if g.src.name == "ec2" {
			in, out := m.in, m.out
			if in == "" {
				if in = m.QueryName; in == "" {
					in = upperFirst(m.LocationName)
				}
			}
			if out == "" {
				out = m.LocationName
			}
			if in == upperFirst(name) {
				in = ""
			}
			if out == lowerFirst(name) {
				out = ""
			}
			if in != "" {
				binds = "i:" + in
			}
			if out != "" {
				if binds != "" {
					binds += " "
				}
				binds += "o:" + out
			}
		} else if m.LocationName != "" && m.LocationName != name {
			binds = "n:" + m.LocationName
		}
	default:
		log.Fatalf("%s: location %q of %s is not known to wire", g.src.name, m.Location, name)
	}
	row("M", name, g.ref(m.Shape), req, binds)
}
