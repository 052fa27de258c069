package policy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// archive is the sorted files of a bundle: path and content of each, every part
// as netstring without the comma. Framed by their lengths, no two lists of
// files have the same bytes.
func archive(files []file) []byte {
	var b bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&b, "%d:%s%d:%s", len(f.path), f.path, len(f.content), f.content)
	}
	return b.Bytes()
}

// Open compiles a bundle from its archive, as it stands in a ledger: what a
// decision of years ago was made by. It refuses bytes that [Bundle.Archive]
// would not have written.
func Open(b []byte) (*Bundle, error) {
	var files []file
	for rest := b; len(rest) > 0; {
		path, after, err := part(rest)
		if err != nil {
			return nil, fmt.Errorf("open policy archive: %w", err)
		}
		content, after, err := part(after)
		if err != nil {
			return nil, fmt.Errorf("open policy archive: %.100q: %w", path, err)
		}
		files, rest = append(files, file{string(path), content}), after
	}
	ascend := func(a, b file) int { return cmp.Or(strings.Compare(a.path, b.path), -1) } // no two alike
	others := slices.ContainsFunc(files, func(f file) bool { return !counts(f.path) })
	if others || !slices.ContainsFunc(files, file.isRego) || !slices.IsSortedFunc(files, ascend) || !bytes.Equal(archive(files), b) {
		return nil, errors.New("open policy archive: not what a bundle is stored as")
	}
	return build(files)
}

func part(b []byte) (content, rest []byte, err error) {
	length, rest, ok := bytes.Cut(b[:min(len(b), 20)], []byte{':'})
	n, err := strconv.ParseUint(string(length), 10, 31)
	if !ok || err != nil {
		return nil, nil, errors.New("a part has no length")
	}
	rest = b[len(length)+1:]
	if n > uint64(len(rest)) {
		return nil, nil, errors.New("a part is cut off")
	}
	return rest[:n], rest[n:], nil
}
