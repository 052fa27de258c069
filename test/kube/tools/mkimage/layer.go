package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// entry is one file, link or folder of a layer.
type entry struct {
	header  tar.Header
	content []byte
}

// pack makes a layer of the entries. Folders above them that are not named are
// made; nothing but names, contents and modes goes in.
func pack(args []string) ([]byte, error) {
	entries := map[string]entry{}
	for _, arg := range args {
		e, err := read(arg)
		if err != nil {
			return nil, err
		}
		if _, twice := entries[e.header.Name]; twice {
			return nil, fmt.Errorf("%s is given twice", e.header.Name)
		}
		entries[e.header.Name] = e
	}
	for name := range entries {
		for dir := path.Dir(strings.TrimSuffix(name, "/")); dir != "."; dir = path.Dir(dir) {
			if _, named := entries[dir+"/"]; !named {
				entries[dir+"/"] = entry{header: tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}}
			}
		}
	}
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	slices.Sort(names) // a folder before what is in it
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range names {
		e := entries[name]
		if err := add(w, e.header, e.content); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	return out.Bytes(), w.Close()
}

func add(w *tar.Writer, h tar.Header, content []byte) error {
	h.ModTime, h.Size, h.Format = time.Unix(0, 0), int64(len(content)), tar.FormatPAX
	if err := w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

func read(arg string) (entry, error) {
	name, source, ok := strings.Cut(arg, "=")
	if !ok || !path.IsAbs(name) || source == "" {
		return entry{}, fmt.Errorf("%q is neither PATH=FILE nor PATH=@TARGET nor PATH/=MODE with an absolute path", arg)
	}
	clean := strings.TrimPrefix(path.Clean(name), "/")
	if strings.HasSuffix(name, "/") {
		mode, err := strconv.ParseInt(source, 8, 64)
		if err != nil {
			return entry{}, fmt.Errorf("the mode of %s: %w", name, err)
		}
		return entry{header: tar.Header{Name: clean + "/", Typeflag: tar.TypeDir, Mode: mode}}, nil
	}
	if target, isLink := strings.CutPrefix(source, "@"); isLink {
		return entry{header: tar.Header{Name: clean, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}}, nil
	}
	content, err := os.ReadFile(source)
	if err != nil {
		return entry{}, err
	}
	info, err := os.Stat(source)
	if err != nil {
		return entry{}, err
	}
	mode := int64(0o644)
	if info.Mode()&0o100 != 0 {
		mode = 0o755 // whatever the umask was when it was made
	}
	return entry{header: tar.Header{Name: clean, Typeflag: tar.TypeReg, Mode: mode}, content: content}, nil
}
