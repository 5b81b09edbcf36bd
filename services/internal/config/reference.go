package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// Reference renders settings as a page of Markdown. dir returns the source
// directory of a package; the comments there are the descriptions. It is for
// generating documentation, where the sources are at hand.
func Reference(title string, list []Setting, dir func(pkg string) string) (string, error) {
	docs := make(map[string]string)
	seen := make(map[string]bool)
	var out strings.Builder
	out.WriteString(title)
	section := ""
	for _, s := range list {
		if !seen[s.Package] {
			seen[s.Package] = true
			if err := comments(dir(s.Package), s.Package, docs); err != nil {
				return "", err
			}
		}
		if head, _, _ := strings.Cut(s.Key, "."); head != section {
			section = head
			fmt.Fprintf(&out, "\n## %s\n\n| Key | Type | Default | Environment | Meaning |\n| --- | --- | --- | --- | --- |\n", section)
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s | %s |\n", s.Key, s.Type, code(s.Default), code(s.Env),
			strings.ReplaceAll(docs[s.Package+"."+s.Struct+"."+s.Field], "|", `\|`))
	}
	return out.String(), nil
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// comments collects the comments of all fields of all structs in a directory.
// A field without one shares that of the field before it.
func comments(dir, pkg string, into map[string]string) error {
	packages, err := parser.ParseDir(token.NewFileSet(), dir, nil, parser.ParseComments|parser.SkipObjectResolution) //nolint:staticcheck // one directory, and no build tags matter
	if err != nil {
		return fmt.Errorf("read comments of %s: %w", pkg, err)
	}
	for _, p := range packages {
		for _, file := range p.Files {
			ast.Inspect(file, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				if st, ok := spec.Type.(*ast.StructType); ok {
					fields(pkg+"."+spec.Name.Name+".", st, into)
				}
				return true
			})
		}
	}
	return nil
}

func fields(prefix string, st *ast.StructType, into map[string]string) {
	last := ""
	for _, field := range st.Fields.List {
		text := field.Doc.Text()
		if text == "" {
			text = field.Comment.Text()
		}
		if text = strings.Join(strings.Fields(text), " "); text != "" {
			last = text
		}
		for _, name := range field.Names {
			into[prefix+name.Name] = last
		}
	}
}
