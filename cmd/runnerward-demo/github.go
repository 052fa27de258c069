package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	simgithub "github.com/runnerward/runnerward/pkg/sim/github"
	"github.com/runnerward/runnerward/pkg/sim/pki"
)

// serve runs until the context ends.
func (o gitHubOptions) serve(ctx context.Context, stdout io.Writer) error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return fmt.Errorf("make --dir: %w", err)
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listener.Close()
	base, host := "https://"+listener.Addr().String(), ""
	if o.plain {
		base = "http://" + listener.Addr().String()
	}
	if o.url != "" {
		u, err := url.Parse(o.url)
		if err != nil {
			return err
		}
		base, host = strings.TrimRight(o.url, "/"), u.Hostname()
	}
	var config *tls.Config
	if !o.plain {
		if config, err = o.certificate(host); err != nil {
			return err
		}
	}
	sim, err := o.simulator(base)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/_sim/", sim.Control(o.controlToken))
	mux.Handle("/", sim)
	server := &http.Server{Handler: mux, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() {
		if config == nil {
			ended <- server.Serve(listener)
			return
		}
		ended <- server.ServeTLS(listener, "", "")
	}()
	o.introduce(stdout, base)
	if o.readyFile != "" {
		if err := os.WriteFile(o.readyFile, []byte(base+" "+listener.Addr().String()+"\n"), 0o600); err != nil {
			return fmt.Errorf("write --ready-file: %w", err)
		}
	}
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	sim.Close() // ends held polls, so that clients can go
	shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(shut)
}

// certificate is for loopback and, if there is one, this host.
func (o gitHubOptions) certificate(host string) (*tls.Config, error) {
	ca, err := pki.New("runnerward demo CA")
	if err != nil {
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	if err := os.WriteFile(filepath.Join(o.dir, "ca.crt"), ca.PEM, 0o644); err != nil {
		return nil, fmt.Errorf("write ca.crt: %w", err)
	}
	hosts := []string{"github.sim"}
	if host != "" && host != hosts[0] {
		hosts = append(hosts, host)
	}
	return ca.Server("github.sim", hosts...)
}

// simulator is a GitHub with the key and the token that are written to the folder.
func (o *gitHubOptions) simulator(base string) (*simgithub.Server, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make the App's key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if o.token == "" {
		var b [16]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, err
		}
		o.token = "ghp_" + hex.EncodeToString(b[:])
	}
	for name, content := range map[string][]byte{"app.pem": text, "token": []byte(o.token + "\n")} {
		if err := os.WriteFile(filepath.Join(o.dir, name), content, 0o600); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
	}
	c := o.config
	c.BaseURL, c.Org, c.Token, c.TokenUser = base, o.org, o.token, o.tokenUser
	c.AppClientID, c.AppInstallationID, c.AppKey = gitHubClientID, gitHubInstallation, &key.PublicKey
	if o.assign == "oldest" {
		c.Assign = simgithub.AssignOldest
	}
	sim := simgithub.New(c)
	if o.tokenUser != "" {
		sim.AddUser(o.tokenUser)
	}
	return sim, nil
}

// The App that the simulator knows.
const (
	gitHubClientID     = "Iv23simulated0000000"
	gitHubInstallation = 4711
)

func (o gitHubOptions) introduce(stdout io.Writer, base string) {
	curl := "curl"
	if !o.plain {
		curl += " --cacert " + filepath.Join(o.dir, "ca.crt")
	}
	auth := ""
	if o.controlToken != "" {
		auth = " -H 'Authorization: Bearer " + strings.Repeat("*", 8) + "'"
	}
	fmt.Fprintf(stdout, `A simulated GitHub is served.

  runners belong to  %[1]s/%[2]s   (the URL for a scale set client)
  REST API           %[1]s/api/v3
  ID tokens          %[1]s/oidc
  control API, docs  %[1]s/_sim/

  GitHub App         client id %[3]s, installation %[4]d, key %[5]s
  token              in %[6]s

  %[7]s%[8]s -d '{"login":"alice"}' %[1]s/_sim/users
  %[7]s -H "Authorization: Bearer $(cat %[6]s)" %[1]s/api/v3/orgs/%[2]s

Ctrl-C ends it.
`, base, o.org, gitHubClientID, gitHubInstallation, filepath.Join(o.dir, "app.pem"), filepath.Join(o.dir, "token"), curl, auth)
}
