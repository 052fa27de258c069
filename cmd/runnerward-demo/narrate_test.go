package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestEveryKindHasAMeaning: the demo tells of each record in words.
func TestEveryKindHasAMeaning(t *testing.T) {
	files, err := filepath.Glob("../../pkg/runner/*.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`Kind\w+ +Kind += "(\w+)"`)
	count := 0
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declared.FindAllStringSubmatch(string(src), -1) {
			count++
			if meaning[m[1]] == "" {
				t.Errorf("a %s record of %s has no meaning", m[1], filepath.Base(file))
			}
		}
	}
	if count != len(meaning) {
		t.Errorf("%d kinds are declared and %d have a meaning", count, len(meaning))
	}
}
