package api

import (
	"testing"
)

func TestPlaneStarts(t *testing.T) {
	p := start(t)
	c, err := p.Client()
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(v.GitVersion)
}
