package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
)

// image is what an archive is made of.
type image struct {
	name   string
	config config
	layers [][]byte // tar archives, the lowest first
}

// The documents of an image, as far as they are used here.
// https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md
type config struct {
	User       string   `json:",omitempty"`
	Env        []string `json:",omitempty"`
	Entrypoint []string `json:",omitempty"`
	Cmd        []string `json:",omitempty"`
	WorkingDir string   `json:",omitempty"`
}

type rootfs struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type imageConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       config `json:"config"`
	RootFS       rootfs `json:"rootfs"`
}

// https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

const (
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"

	// nameAnnotation is how containerd finds an image's name in a layout:
	// github.com/containerd/containerd/v2/core/images, AnnotationImageName.
	nameAnnotation = "io.containerd.image.name"
)

// archive is the layout, and the image's name by digest.
// https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
func (im image) archive() (content []byte, name string, err error) {
	colon := strings.LastIndexByte(im.name, ':') // a registry may have a port
	if colon <= 0 || colon == len(im.name)-1 || strings.Contains(im.name[colon:], "/") {
		return nil, "", fmt.Errorf("the name %q is not REPOSITORY:TAG", im.name)
	}
	if len(im.layers) == 0 {
		return nil, "", errors.New("an image of nothing")
	}
	l := layout{}
	c := imageConfig{Architecture: runtime.GOARCH, OS: "linux", Config: im.config, RootFS: rootfs{Type: "layers"}}
	m := manifest{SchemaVersion: 2, MediaType: typeManifest}
	for _, layer := range im.layers {
		d := l.blob(typeLayer, layer)
		m.Layers = append(m.Layers, d)
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, d.Digest)
	}
	if m.Config, err = l.document(typeConfig, c); err != nil {
		return nil, "", err
	}
	d, err := l.document(typeManifest, m)
	if err != nil {
		return nil, "", err
	}
	ix := index{SchemaVersion: 2, MediaType: typeIndex}
	name = im.name[:colon] + "@" + d.Digest
	for _, n := range []string{im.name, name} {
		named := d
		named.Annotations = map[string]string{nameAnnotation: n}
		ix.Manifests = append(ix.Manifests, named)
	}
	text, err := json.Marshal(ix)
	if err != nil {
		return nil, "", err
	}
	l.files = append(l.files, file{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}, file{"index.json", text})
	content, err = l.tar()
	return content, name, err
}

type file struct {
	name    string
	content []byte
}

type layout struct{ files []file }

func (l *layout) blob(mediaType string, content []byte) descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	l.files = append(l.files, file{"blobs/sha256/" + sum, content})
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(content)}
}

func (l *layout) document(mediaType string, v any) (descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return l.blob(mediaType, text), nil
}

func (l *layout) tar() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range l.files {
		if err := add(w, tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644}, f.content); err != nil {
			return nil, fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	return out.Bytes(), w.Close()
}
