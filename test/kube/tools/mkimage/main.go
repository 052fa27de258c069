// Command mkimage makes a container image of files, with no daemon and no
// registry, the same bytes from the same files on every machine.
//
//	mkimage -o FILE -name REPOSITORY:TAG [FLAG...] ENTRY...
//
//	PATH=FILE     a file of the image; executable if the local one is
//	PATH=@TARGET  a symbolic link
//	PATH/=MODE    a folder, its mode in octal
//
// The file is an OCI image layout in a tar archive, which ctr and containerd
// import, under its name and, as that is how Runnerward wants images, under
// REPOSITORY@DIGEST, which is printed. All of the image is root's.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

// list is a flag that may be given again.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	*l = append(*l, s)
	return nil
}

func run(args []string, out io.Writer) error {
	var im image
	var env, layers, entrypoint, command list
	flags := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	file := flags.String("o", "", "the file to write")
	flags.StringVar(&im.name, "name", "", "REPOSITORY:TAG")
	flags.StringVar(&im.config.User, "user", "", "the user that it runs as")
	flags.StringVar(&im.config.WorkingDir, "workdir", "/", "the working directory")
	flags.Var(&env, "env", "NAME=VALUE, may be given again")
	flags.Var(&entrypoint, "entrypoint", "a word of it, may be given again")
	flags.Var(&command, "cmd", "a word of it, may be given again")
	flags.Var(&layers, "layer", "a tar archive as a layer below the files, may be given again")
	if err := flags.Parse(args); err != nil {
		return err
	}
	im.config.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	im.config.Entrypoint, im.config.Cmd = entrypoint, command
	for _, name := range layers {
		content, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read a layer: %w", err)
		}
		im.layers = append(im.layers, content)
	}
	if flags.NArg() > 0 {
		layer, err := pack(flags.Args())
		if err != nil {
			return err
		}
		im.layers = append(im.layers, layer)
	}
	archive, name, err := im.archive()
	if err != nil {
		return err
	}
	if err := os.WriteFile(*file, archive, 0o644); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	_, err = fmt.Fprintln(out, name)
	return err
}
