package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// need says what is asked of a file.
type need int

const (
	optional need = iota // may be left out; readable if given
	required
	// secret is required and closed to the world. Its group may read it: that
	// is how the kubelet mounts a Secret for a pod with fsGroup (0440), and how
	// systemd passes credentials.
	secret
)

func (v *validation) readable(key, path string, n need) {
	if path == "" {
		if n != optional {
			v.report(key, "missing", "give the path of the file")
		}
		return
	}
	if v.offline {
		return
	}
	info, err := probe(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.report(key, fmt.Sprintf("%s does not exist", path), "create it or correct the path")
	case errors.Is(err, fs.ErrPermission):
		v.report(key, fmt.Sprintf("%s may not be read by this user", path), "let the user of the daemon read it")
	case errors.Is(err, io.EOF):
		v.report(key, fmt.Sprintf("%s is empty", path), "write the file again")
	case err != nil:
		v.report(key, fmt.Sprintf("%s cannot be read: %v", path, cause(err)), "give a readable file")
	case n == secret && info.Mode().Perm()&0o037 != 0:
		v.report(key, fmt.Sprintf("%s has mode %#o: others may read the secret", path, info.Mode().Perm()), "chmod 0400 "+path)
	}
}

// probe reads the first byte: opening alone succeeds for a folder.
func probe(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 1))
	return info, err
}

func cause(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// folderNeed says what is asked of a folder.
type folderNeed int

const (
	existing folderNeed = iota
	private             // may be missing; closed to everybody else if it is there
)

func (v *validation) folder(key, path string, n folderNeed) {
	if path == "" || v.offline {
		return
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && n == private:
	case errors.Is(err, fs.ErrNotExist):
		v.report(key, fmt.Sprintf("%s does not exist", path), "create it or correct the path")
	case err != nil:
		v.report(key, fmt.Sprintf("%s cannot be read: %v", path, cause(err)), "let the user of the daemon read it")
	case !info.IsDir():
		v.report(key, fmt.Sprintf("%s is not a folder", path), "give a folder")
	case n == private && info.Mode().Perm()&0o027 != 0:
		v.report(key, fmt.Sprintf("%s has mode %#o: others may read what is in it", path, info.Mode().Perm()), "chmod 0700 "+path)
	}
}
