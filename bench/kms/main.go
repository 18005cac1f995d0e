// Command kms measures the key service: signed requests over loopback against the
// real `sealdesk serve`, with signature check, authorization and durable audit on,
// next to a net/http server in a process of its own whose handler does nothing and
// gets the very same requests. The two alternate within every round; ratios are of
// one round, and medians of the rounds are printed.
//
//	go run ./bench/kms [-quick] [-rounds 5] [-seconds 1] [-keys 100000] [-grants 50000] [-only substring] [-lean] [-server FILE] [-before FILE] [-dir DIR]
//
// Four servers run side by side: 10 keys and 10 grants with each record synced
// before the reply (fsynced, the default), the same with records written and not
// synced (written: --audit-written), one with many keys, one with many grants on
// one key. All keys and grants are made through the API before the measurement.
//
// A call is signed anew each time, with the headers the AWS SDK for Go sends. The
// generator's own CPU time a call is printed beside the server's; on a machine
// with few cores both share them, so a rate says what client and server reach
// together. A sample of CreateGrant is two calls, CreateGrant and RetireGrant.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

type options struct {
	rounds, keys, grants int
	seconds              float64
	quick                bool
	only, server, dir    string
	before               string
	profile              string
	lean                 bool
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds")
	flag.Float64Var(&o.seconds, "seconds", 1, "seconds for each measurement")
	flag.IntVar(&o.keys, "keys", 100_000, "keys of the server with many")
	flag.IntVar(&o.grants, "grants", 50_000, "grants on one key of the server with many")
	flag.BoolVar(&o.quick, "quick", false, "3 rounds, a tenth of the keys and grants, no rows of one connection but Decrypt's; under two minutes")
	flag.StringVar(&o.only, "only", "", "rows whose text contains this, for example 'Decrypt 128 fsynced'")
	flag.StringVar(&o.server, "server", "", "sealdesk binary (default: built from this source)")
	flag.StringVar(&o.before, "before", "", "another sealdesk binary, measured in the same rounds: for what a change is worth on a machine that is not quiet")
	flag.StringVar(&o.dir, "dir", "", "directory for the servers' data (default: a temporary one)")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles of the servers to FILE.NAME")
	flag.BoolVar(&o.lean, "lean", false, "a client that writes and reads the bytes of HTTP itself, instead of net/http's: more calls a second from the same cores, and lower ratios")
	nothing := flag.Bool("nothing", false, "internal: be the server that does nothing")
	flag.Parse()
	if *nothing {
		log.Fatal(serveNothing())
	}
	if o.quick {
		o.rounds, o.keys, o.grants, o.seconds = min(o.rounds, 3), o.keys/10, o.grants/10, o.seconds/2
	}
	if err := bench(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench/kms:", err)
		os.Exit(1)
	}
}

// before marks the server of -before.
const before = ", before"

// rows is what is measured.
func rows(quick bool) []row {
	var out []row
	for _, op := range []string{"Decrypt", "GenerateDataKeyWithoutPlaintext", "Encrypt", "Sign", "CreateGrant"} {
		for _, n := range []int{1, 16, 128} {
			if quick && (n == 16 || n == 1 && op != "Decrypt") {
				continue
			}
			out = append(out, row{op, n, false, []string{"fsynced"}})
		}
	}
	for _, op := range []string{"Decrypt", "GenerateDataKeyWithoutPlaintext"} {
		out = append(out, row{op, 32, false, []string{"written"}})
		out = append(out, row{op, 128, false, []string{"fsynced", "many keys"}})
	}
	out = append(out, row{"Decrypt", 128, true, []string{"fsynced", "many grants"}})
	return out
}

func bench(o options) error {
	dir, err := os.MkdirTemp(o.dir, "kmsbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.server == "" {
		o.server = filepath.Join(dir, "sealdesk")
		build := exec.Command("go", "build", "-o", o.server, "./cmd/sealdesk")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("build the server (run this in the repository, or give -server): %w", err)
		}
	}
	var plan []row
	needed := map[string]bool{}
	for _, r := range rows(o.quick) {
		if !strings.Contains(r.title(), o.only) {
			continue
		}
		if o.before != "" && len(r.servers) == 1 {
			r.servers = append(r.servers, r.servers[0]+before)
		}
		plan = append(plan, r)
		for _, s := range r.servers {
			needed[s] = true
		}
	}
	synced, err := syncTime(dir)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	nothing, err := start(dir, nil, self, "-nothing")
	if err != nil {
		return err
	}
	defer nothing.stop()
	fixtures := map[string]*fixture{}
	for _, f := range []*fixture{{name: "fsynced", nkeys: 10, ngrants: 10}, {name: "written", nkeys: 10, ngrants: 10}, {name: "many keys", nkeys: o.keys, ngrants: 10}, {name: "many grants", nkeys: 10, ngrants: o.grants},
		{name: "fsynced" + before, nkeys: 10, ngrants: 10}, {name: "written" + before, nkeys: 10, ngrants: 10}} {
		if !needed[f.name] {
			continue
		}
		if err := f.serve(dir, o); err != nil {
			return err
		}
		defer f.stop()
		if err := f.fill(); err != nil {
			return fmt.Errorf("fill the server %q: %w", f.name, err)
		}
		fixtures[f.name] = f
	}
	fmt.Printf("%d rounds of %.1f s, %d cores; one append of 1200 bytes with fdatasync here: %d µs; signing a request: %.1f µs of the generator's time\n", o.rounds, o.seconds, runtime.NumCPU(), synced.Microseconds(), float64(signingTime().Nanoseconds())/1000)
	fmt.Printf("many keys: %d; many grants: %d on one key. Medians of the rounds; × is to the handler that does nothing, in the same round.\n\n", o.keys, o.grants)
	fmt.Printf("%-32s %5s %-15s %8s %5s  %13s %13s %13s  %8s %8s %6s\n", "", "conns", "server", "calls/s", "×", "p50 ms (×)", "p99 ms (×)", "p99.9 ms (×)", "CPU/call", "own CPU", "RSS")
	for _, r := range plan {
		if err := measure(o, r, nothing, fixtures); err != nil {
			return fmt.Errorf("%s: %w", r.title(), err)
		}
	}
	return nil
}

// title names a row, for -only.
func (r row) title() string {
	by := ""
	if r.grantee {
		by = "by grant "
	}
	return fmt.Sprintf("%s %s%d %s", r.operation, by, r.conns, strings.Join(r.servers, ", "))
}

// serve starts the fixture's server.
func (f *fixture) serve(dir string, o options) (err error) {
	data := filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "").Replace(f.name))
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	argv := []string{o.server, "serve", "--data-dir", data, "--listen", "127.0.0.1:0"}
	name, old := strings.CutSuffix(f.name, before)
	if old {
		argv[0] = o.before
	}
	if name == "written" {
		argv = append(argv, "--audit-written")
	}
	if o.profile != "" {
		argv = append(argv, "--cpu-profile", o.profile+"."+filepath.Base(data))
	}
	f.process, err = start(data, []string{"SEALDESK_ACCOUNT_ID=" + account, "SEALDESK_ROOT_ACCESS_KEY_ID=" + rootKey, "SEALDESK_ROOT_SECRET_ACCESS_KEY=" + rootSecret}, argv...)
	return err
}

// measure runs one row: in every round the server that does nothing and each of
// the row's servers, one after the other.
func measure(o options, r row, nothing *process, fixtures map[string]*fixture) error {
	type runner struct {
		name  string
		p     *process
		conns []*client
		w     workload
		all   []result
	}
	var list []*runner
	add := func(name string, p *process, f *fixture) error {
		u := f.admin
		if r.grantee {
			u = f.grantee
		}
		conns, err := connect(p.addr, u, r.conns, o.lean)
		if err != nil {
			return err
		}
		list = append(list, &runner{name, p, conns, f.workload(r), nil})
		return nil
	}
	if err := add("nothing", nothing, fixtures[r.servers[0]]); err != nil {
		return err
	}
	for _, s := range r.servers {
		if err := add(s, fixtures[s].process, fixtures[s]); err != nil {
			return err
		}
	}
	d := time.Duration(o.seconds * float64(time.Second))
	for round := range o.rounds + 1 {
		for i := range list {
			x := list[i]
			if round%2 == 1 {
				x = list[len(list)-1-i]
			}
			took := d
			if round == 0 {
				took = d / 2
			}
			res, err := run(x.conns, took, x.p, x.w)
			if err != nil {
				return err
			}
			if round > 0 { // the first is to warm up
				x.all = append(x.all, res)
			}
		}
	}
	for _, x := range list {
		disconnect(x.conns)
	}
	op := r.operation
	switch {
	case r.grantee:
		op += " by grant"
	case op == "CreateGrant":
		op += "+RetireGrant"
	}
	for _, x := range list {
		of := func(f func(r *result) time.Duration) (ms, ratio float64) {
			var v []time.Duration
			var q []float64
			for i := range x.all {
				v = append(v, f(&x.all[i]))
				q = append(q, float64(f(&x.all[i]))/float64(f(&list[0].all[i])))
			}
			return float64(median(v).Nanoseconds()) / 1e6, median(q)
		}
		var rate, ratio, cpu, own []float64
		for i := range x.all {
			rate = append(rate, x.all[i].rate)
			ratio = append(ratio, x.all[i].rate/list[0].all[i].rate)
			cpu = append(cpu, float64(x.all[i].cpu.Nanoseconds())/1000)
			own = append(own, float64(x.all[i].own.Nanoseconds())/1000)
		}
		p50, r50 := of(func(r *result) time.Duration { return r.p50 })
		p99, r99 := of(func(r *result) time.Duration { return r.p99 })
		p999, r999 := of(func(r *result) time.Duration { return r.p999 })
		fmt.Printf("%-32s %5d %-15s %8.0f %5.2f  %6.2f (%4.1f) %6.2f (%4.1f) %6.2f (%4.1f)  %5.1f µs %5.1f µs %3d MB\n", op, r.conns, x.name, median(rate), median(ratio), p50, r50, p99, r99, p999, r999, median(cpu), median(own), x.p.memory())
	}
	return nil
}

// signingTime is what making one signed request costs the generator.
func signingTime() time.Duration {
	c := &client{user: user{rootKey, rootSecret}, addr: "127.0.0.1:65535"}
	body := make([]byte, 400)
	const n = 20_000
	from := selfCPU()
	for range n {
		c.request("Decrypt", body)
	}
	return (selfCPU() - from) / n
}
