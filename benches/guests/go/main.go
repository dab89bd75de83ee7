// Parses a template and makes a table, as the set-up of a program does.
package main

import (
	"regexp"
	"strings"
	"text/template"
)

var words = map[string]int{}
var pattern *regexp.Regexp
var page *template.Template

//go:wasmexport wizer.initialize
func initialize() {
	pattern = regexp.MustCompile(`(\w+)@(\w+)\.(com|org)`)
	page = template.Must(template.New("page").Parse("{{range .}}<li>{{.}}</li>{{end}}"))
	for i, word := range strings.Fields(strings.Repeat("a quick brown fox jumps ", 100)) {
		words[word] += i
	}
}

func main() {}
