package postern_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.yaml.in/yaml/v4"
)

// targetLabels are those that Prometheus gives to every series of a target.
var targetLabels = []string{"job", "instance"}

// catalogue is what queries may mention.
type catalogue map[string]listedMetric

// newCatalogue returns the metrics of the list, and those of the process and of Prometheus itself.
func newCatalogue(t testing.TB) catalogue {
	t.Helper()
	c := catalogue(readMetrics(t))
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		c[family.GetName()] = listedOf(family)
	}
	c["up"] = listedMetric{name: "up", kind: "gauge"}
	return c
}

// labels returns the labels of the series that a name in a query means.
func (c catalogue) labels(name string) (labels map[string][]string, ok bool) {
	m, ok := c[name]
	labels = maps.Clone(m.labels)
	if labels == nil {
		labels = map[string][]string{}
	}
	if ok && m.kind == "histogram" {
		return nil, false // there are only its parts
	}
	if !ok {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base, cut := strings.CutSuffix(name, suffix)
			if m, known := c[base]; cut && known && m.kind == "histogram" {
				labels, ok = maps.Clone(m.labels), true
				if suffix == "_bucket" {
					labels["le"] = nil
				}
			}
		}
	}
	for _, name := range targetLabels {
		labels[name] = nil
	}
	return labels, ok
}

// check returns what is wrong with a query, and the labels that its result has.
func (c catalogue) check(query string) (result []string, faults []string) {
	q, err := scanQuery(query)
	if err != nil {
		return nil, []string{err.Error()}
	}
	known := map[string]bool{}
	for i, m := range q.mentions {
		labels, ok := c.labels(m.metric)
		if !ok {
			faults = append(faults, fmt.Sprintf("there is no metric %q", m.metric))
			continue
		}
		if i == 0 {
			result = slices.Collect(maps.Keys(labels))
		}
		for label := range labels {
			known[label] = true
		}
		for _, match := range m.matchers {
			values, ok := labels[match.label]
			if !ok {
				faults = append(faults, fmt.Sprintf("%s has no label %q", m.metric, match.label))
			}
			for value := range strings.SplitSeq(match.value, "|") {
				if values != nil && !slices.Contains(values, value) {
					faults = append(faults, fmt.Sprintf("label %s of %s is never %q", match.label, m.metric, value))
				}
			}
		}
	}
	if len(q.mentions) == 0 {
		faults = append(faults, "it mentions no metric")
	}
	for _, label := range q.grouping {
		if !known[label] {
			faults = append(faults, fmt.Sprintf("no metric of it has a label %q", label))
		}
	}
	if q.aggregates {
		result = q.grouping
	}
	return result, faults
}

// query is what one in PromQL mentions.
type query struct {
	mentions   []mention
	grouping   []string // labels in by, on and their like
	aggregates bool
}

type mention struct {
	metric   string
	matchers []matcher
}

type matcher struct{ label, value string }

var (
	queryToken = regexp.MustCompile(`^(?:` +
		`\s+|` +
		`(?P<ident>[a-zA-Z_][a-zA-Z0-9_:]*)|` +
		`(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|` +
		`\[[^\]]*\]|` + // a range: a duration or a variable of Grafana
		`[0-9][0-9a-zA-Z.]*|` +
		`(?P<punct>[!=]~|[!=<>]=|[-+*/%^=<>(){},])` +
		`)`)
	aggregators = []string{"sum", "min", "max", "avg", "count", "topk", "bottomk"}
	functions   = []string{"rate", "increase", "histogram_quantile", "time", "vector", "absent", "clamp_min", "changes"}
	labelLists  = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	operators   = []string{"and", "or", "unless", "bool", "offset"}
)

// scanQuery finds what a query in PromQL mentions. It knows as much of the language as our examples use, and refuses
// the rest.
func scanQuery(text string) (query, error) {
	type token struct{ kind, text string }
	var tokens []token
	for rest := text; rest != ""; {
		found := queryToken.FindStringSubmatch(rest)
		if found == nil {
			return query{}, fmt.Errorf("%q cannot be read", rest)
		}
		rest = rest[len(found[0]):]
		for _, kind := range []string{"ident", "string", "punct"} {
			if part := found[queryToken.SubexpIndex(kind)]; part != "" {
				tokens = append(tokens, token{kind, part})
			}
		}
	}
	at := func(i int) token {
		if i < len(tokens) {
			return tokens[i]
		}
		return token{}
	}
	var q query
	for i := 0; i < len(tokens); i++ {
		t, next := at(i), at(i+1)
		if t.text == "{" {
			return query{}, fmt.Errorf("a selector without a name")
		}
		if t.kind != "ident" {
			continue
		}
		switch {
		case slices.Contains(labelLists, t.text) && next.text == "(":
			for i += 2; at(i).text != ")"; i++ {
				if at(i).kind == "ident" {
					q.grouping = append(q.grouping, at(i).text)
				} else if at(i).text != "," {
					return query{}, fmt.Errorf("%q in the labels of %s", at(i).text, t.text)
				}
			}
		case slices.Contains(operators, t.text):
		case slices.Contains(aggregators, t.text) && (next.text == "(" || slices.Contains(labelLists, next.text)):
			q.aggregates = true
		case next.text == "(":
			if !slices.Contains(functions, t.text) {
				return query{}, fmt.Errorf("function %q is not known", t.text)
			}
		default:
			m := mention{metric: t.text}
			if next.text == "{" {
				for i += 2; at(i).text != "}"; i++ {
					if at(i).text == "," {
						continue
					}
					if at(i).kind != "ident" || at(i+1).kind != "punct" || at(i+2).kind != "string" {
						return query{}, fmt.Errorf("the matchers of %s cannot be read", t.text)
					}
					m.matchers = append(m.matchers, matcher{at(i).text, at(i + 2).text[1 : len(at(i+2).text)-1]})
					i += 2
				}
			}
			q.mentions = append(q.mentions, m)
		}
	}
	return q, nil
}

func TestScanQuery(t *testing.T) {
	list := catalogue{
		"a_total":   {kind: "counter", labels: map[string][]string{"destination": nil, "class": {"ok", "tls"}}},
		"b_seconds": {kind: "histogram", labels: map[string][]string{}},
	}
	for _, tc := range []struct{ name, query, want string }{
		{"a name", `a_total`, ""},
		{"matchers", `a_total{class="ok", destination=~"$x"}`, ""},
		{"several values", `a_total{class!~"ok|tls"} > 0.5`, ""},
		{"an aggregation before its labels", `sum by (job, class) (rate(a_total[5m])) / 2`, ""},
		{"an aggregation after its labels", `sum(rate(a_total[$__rate_interval])) by (instance)`, ""},
		{"a quantile", `histogram_quantile(0.99, sum by (le) (rate(b_seconds_bucket[10m])))`, ""},
		{"an operation on sets", `a_total > 1e3 unless on (job) up_not == 1`, `there is no metric "up_not"`},
		{"no such metric", `rate(c_total[5m])`, `there is no metric "c_total"`},
		{"no such label", `a_total{event="x"}`, `a_total has no label "event"`},
		{"no such value", `a_total{class=~"ok|oops"}`, `label class of a_total is never "oops"`},
		{"no such grouping", `sum by (event) (a_total)`, `no metric of it has a label "event"`},
		{"a histogram by itself", `b_seconds`, `there is no metric "b_seconds"`},
		{"a bound without buckets", `sum by (le) (b_seconds_sum)`, `no metric of it has a label "le"`},
		{"a function with a typing error", `rat(a_total[5m])`, `function "rat" is not known`},
		{"a selector without a name", `{job="x"}`, "a selector without a name"},
		{"an open selector", `a_total{class=`, "the matchers of a_total cannot be read"},
		{"an open list", `sum by (class`, `"" in the labels of by`},
		{"no metric", `vector(0)`, "it mentions no metric"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, faults := list.check(tc.query)
			if got := strings.Join(faults, "; "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

var alertLabel = regexp.MustCompile(`\$labels\.(\w+)`)

// TestMetricsInAlerts reads the example's alert rules.
func TestMetricsInAlerts(t *testing.T) {
	list := newCatalogue(t)
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	folder := filepath.Join("examples", "prometheus")
	readYAML(t, filepath.Join(folder, "postern.rules.yaml"), &rules)
	about, err := os.ReadFile(filepath.Join(folder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			t.Run(rule.Alert, func(t *testing.T) {
				if rule.Alert == "" || seen[rule.Alert] {
					t.Errorf("a rule needs a name of its own")
				}
				seen[rule.Alert] = true
				result, faults := list.check(rule.Expr)
				for _, fault := range faults {
					t.Errorf("%s: %s", rule.Expr, fault)
				}
				if _, err := time.ParseDuration(rule.For); rule.For != "" && err != nil {
					t.Errorf("for: %v", err)
				}
				if !slices.Contains([]string{"critical", "warning"}, rule.Labels["severity"]) {
					t.Errorf("got severity %q, want critical or warning", rule.Labels["severity"])
				}
				for _, key := range []string{"summary", "description"} {
					text := rule.Annotations[key]
					if text == "" {
						t.Errorf("there is no %s", key)
					}
					for _, found := range alertLabel.FindAllStringSubmatch(text, -1) {
						if !slices.Contains(result, found[1]) {
							t.Errorf("%s: the result has labels %q, not %q", key, result, found[1])
						}
					}
				}
				if !strings.Contains(string(about), "`"+rule.Alert+"`") {
					t.Errorf("README.md does not name it")
				}
			})
		}
	}
	if len(seen) < 10 {
		t.Errorf("got %d alerts: this tests nothing", len(seen))
	}

	t.Run("the example of a Prometheus loads them, from the job that they name", func(t *testing.T) {
		var server struct {
			RuleFiles     []string `yaml:"rule_files"`
			ScrapeConfigs []struct {
				JobName       string                       `yaml:"job_name"`
				StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
			} `yaml:"scrape_configs"`
		}
		readYAML(t, filepath.Join(folder, "prometheus.yml"), &server)
		if got, want := fmt.Sprint(server), "{[postern.rules.yaml] [{postern [{[127.0.0.1:8026]}]}]}"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func readYAML(t testing.TB, file string, into any) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// panel is what the test needs of one of Grafana's.
type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ H, W, X, Y int }
	Targets                  []struct{ RefID, Expr string }
	Repeat                   string
	Panels                   []panel
}

var (
	labelValues     = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	grafanaVariable = regexp.MustCompile(`\$\{?(\w+)`)
)

// TestMetricsInDashboard reads the example's dashboard.
func TestMetricsInDashboard(t *testing.T) {
	list := newCatalogue(t)
	raw, err := os.ReadFile(filepath.Join("examples", "grafana", "postern.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Title, UID string
		Panels     []panel
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		t.Fatal(err)
	}
	variables := map[string]bool{"__rate_interval": true, "__all": true} // Grafana's own
	for _, v := range board.Templating.List {
		variables[v.Name] = true
		if v.Type == "datasource" {
			continue
		}
		found := labelValues.FindStringSubmatch(v.Definition)
		if found == nil {
			t.Fatalf("variable %s: %q asks for no values", v.Name, v.Definition)
		}
		result, faults := list.check(found[1])
		if len(faults) > 0 || !slices.Contains(result, found[2]) {
			t.Errorf("variable %s: %q: %v", v.Name, v.Definition, faults)
		}
	}
	for _, found := range grafanaVariable.FindAllStringSubmatch(string(raw), -1) {
		if !variables[found[1]] {
			t.Errorf("$%s is no variable", found[1])
		}
	}
	if board.Title == "" || board.UID == "" || !variables["destination"] || !variables["datasource"] {
		t.Errorf("got title %q, uid %q, variables %v", board.Title, board.UID, variables)
	}

	queries := 0
	ids, taken := map[int]string{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if other, ok := ids[p.ID]; ok || p.ID <= 0 {
			t.Errorf("panel %q has the id %d of %q", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x < 0 || x >= 24 {
					t.Fatalf("panel %q stands outside, or where %q is, at %d, %d", p.Title, other, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if len(p.Panels) > 0 {
			t.Errorf("row %q hides panels from this test", p.Title)
		}
		if p.Repeat != "" && !variables[p.Repeat] {
			t.Errorf("row %q repeats by %q, which is no variable", p.Title, p.Repeat)
		}
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q needs a title, a description and a query", p.ID, p.Title)
		}
		for _, target := range p.Targets {
			queries++
			if _, faults := list.check(target.Expr); len(faults) > 0 {
				t.Errorf("panel %q: %s: %s", p.Title, target.Expr, strings.Join(faults, "; "))
			}
		}
	}
	if queries < 20 {
		t.Errorf("got %d queries: this tests nothing", queries)
	}
}
