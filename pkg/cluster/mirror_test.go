package cluster

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestAListOfAllThatThereIsOwesNoMore: an API server whose store was restored gives
// out lower versions than before, and the copy would never be believed again.
func TestAListOfAllThatThereIsOwesNoMore(t *testing.T) {
	for name, c := range map[string]struct {
		owed, asked, written, want string
	}{
		"of a store that was restored":      {owed: "100", want: "10"},
		"that grew":                         {owed: "5", want: "10"},
		"while something was written":       {owed: "5", written: "12", want: "12"},
		"that may be older than our writes": {owed: "12", asked: "7", want: "12"},
	} {
		m := &mirror{what: "nodes", owed: c.owed}
		m.listAll = func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			if c.written != "" {
				m.owe(c.written)
			}
			return &corev1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "10"}}, nil
		}
		if _, err := m.list(t.Context(), metav1.ListOptions{ResourceVersion: c.asked}); err != nil || m.owed != c.want {
			t.Errorf("a list %s: the copy must reach %q, %v, want %q", name, m.owed, err, c.want)
		}
	}
}
