package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// files writes a program and a text with these modes and this age.
func files(t *testing.T, program, text os.FileMode, age time.Duration) (string, string) {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"program": program, "text": text} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "program"), filepath.Join(dir, "text")
}

func build(t *testing.T, args ...string) (archive []byte, printed string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image.tar")
	var said strings.Builder
	if err := run(append([]string{"-o", out}, args...), &said); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return archive, strings.TrimSpace(said.String())
}

func untar(t *testing.T, archive []byte) (map[string][]byte, map[string]*tar.Header) {
	t.Helper()
	contents, headers := map[string][]byte{}, map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return contents, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		if headers[h.Name] != nil {
			t.Fatalf("%s is in the archive twice", h.Name)
		}
		headers[h.Name] = h
		if contents[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheSameFilesMakeTheSameImage(t *testing.T) {
	oldProgram, oldText := files(t, 0o700, 0o600, 1000*time.Hour)
	newProgram, newText := files(t, 0o755, 0o666, 0)
	first, name := build(t, "-name", "example.com/a/b:dev", "/bin/program="+oldProgram, "/etc/text="+oldText)
	second, again := build(t, "-name", "example.com/a/b:dev", "/etc/text="+newText, "/bin/program="+newProgram)
	if !bytes.Equal(first, second) || name != again {
		t.Errorf("two images of the same files differ: %s, %s", name, again)
	}
	if _, other := build(t, "-name", "example.com/a/b:dev", "/bin/program="+newText); other == name {
		t.Error("another image has the same digest")
	}
}

func TestAnImageIsWhatItSays(t *testing.T) {
	program, text := files(t, 0o755, 0o644, 0)
	archive, printed := build(t, "-name", "example.com:5000/a/b:dev", "-user", "1001", "-env", "A=b", "-entrypoint", "/bin/program",
		"-workdir", "/home", "/bin/program="+program, "/etc/deep/text="+text, "/sh=@/bin/program", "/tmp/=1777")
	blobs, _ := untar(t, archive)
	blob := func(d descriptor) []byte {
		t.Helper()
		content, ok := blobs["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if !ok || len(content) != d.Size || fmt.Sprintf("sha256:%x", sha256.Sum256(content)) != d.Digest {
			t.Fatalf("the blob of %+v is missing or another", d)
		}
		return content
	}
	var ix index
	var m manifest
	var c imageConfig
	decode(t, blobs["index.json"], &ix)
	decode(t, blob(ix.Manifests[0]), &m)
	decode(t, blob(m.Config), &c)
	names := []string{ix.Manifests[0].Annotations[nameAnnotation], ix.Manifests[1].Annotations[nameAnnotation]}
	if want := "example.com:5000/a/b@" + ix.Manifests[0].Digest; names[0] != "example.com:5000/a/b:dev" || names[1] != want || printed != want {
		t.Errorf("names = %v, printed %s, want the tag and %s", names, printed, want)
	}
	if c.OS != "linux" || c.Config.User != "1001" || c.Config.WorkingDir != "/home" || c.Config.Entrypoint[0] != "/bin/program" ||
		c.Config.Env[1] != "A=b" || c.RootFS.DiffIDs[0] != m.Layers[0].Digest {
		t.Errorf("config = %+v", c)
	}
	contents, headers := untar(t, blob(m.Layers[0]))
	for name, want := range map[string]struct {
		kind    byte
		mode    int64
		content string
	}{
		"bin/": {tar.TypeDir, 0o755, ""}, "bin/program": {tar.TypeReg, 0o755, "program\n"}, "etc/": {tar.TypeDir, 0o755, ""},
		"etc/deep/": {tar.TypeDir, 0o755, ""}, "etc/deep/text": {tar.TypeReg, 0o644, "text\n"},
		"sh": {tar.TypeSymlink, 0o777, ""}, "tmp/": {tar.TypeDir, 0o1777, ""},
	} {
		h := headers[name]
		if h == nil || h.Typeflag != want.kind || h.Mode != want.mode || h.Uid != 0 || string(contents[name]) != want.content {
			t.Errorf("%s = %+v %q, want %+v", name, h, contents[name], want)
		}
	}
	if len(headers) != 7 {
		t.Errorf("the layer has %d entries, want 7", len(headers))
	}
}

func decode(t *testing.T, text []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsNoImageIsRefused(t *testing.T) {
	program, _ := files(t, 0o755, 0o644, 0)
	for name, args := range map[string][]string{
		"no tag":        {"-name", "example.com/a/b", "/a=" + program},
		"a port only":   {"-name", "example.com:5000/a", "/a=" + program},
		"nothing in it": {"-name", "a:b"},
		"relative":      {"-name", "a:b", "a=" + program},
		"no file":       {"-name", "a:b", "/a=" + program + ".missing"},
		"twice":         {"-name", "a:b", "/a=" + program, "/a=" + program},
		"no mode":       {"-name", "a:b", "/a/=rwx"},
	} {
		out := filepath.Join(t.TempDir(), "image.tar")
		if err := run(append([]string{"-o", out}, args...), io.Discard); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: an image was written", name)
		}
	}
}
