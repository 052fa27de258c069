package identitydoc_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/runnerward/runnerward/pkg/identitydoc"
	"github.com/runnerward/runnerward/pkg/runner"
	simimds "github.com/runnerward/runnerward/pkg/sim/imds"
)

// fipsOnly says that this process is the child of
// [TestEverythingWorksUnderFIPSOnly].
const fipsOnly = "IDENTITYDOC_TEST_FIPS_ONLY"

// authorities are made once: keys take longer than everything else here.
var authorities = sync.OnceValue(func() (made [3]*simimds.Authority) {
	for i, region := range []string{"us-east-1", "us-west-2", "us-east-1"} {
		a, err := simimds.NewAuthority(region, nil)
		if err != nil {
			panic(err)
		}
		made[i] = a
	}
	return made
})

func instance() simimds.Instance {
	return simimds.Instance{
		ID: "i-0123456789abcdef0", AccountID: "111122223333", Region: "us-east-1", Zone: "us-east-1a",
		ImageID: "ami-0b0771e0c4e7b0771", Type: "m6i.large", PrivateIP: "10.0.1.2",
		LaunchedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

func parse(t *testing.T, file []byte) *identitydoc.Certificates {
	t.Helper()
	c, err := identitydoc.ParseCertificates(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sign(t *testing.T, a *simimds.Authority, doc []byte) []byte {
	t.Helper()
	s, err := a.Sign(doc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// signedData signs as smallstep's library lets one, for signatures that AWS
// would not make.
func signedData(t *testing.T, doc []byte, change func(*pkcs7.SignedData)) []byte {
	t.Helper()
	sd, err := pkcs7.NewSignedData(doc)
	if err != nil {
		t.Fatal(err)
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	change(sd)
	der, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return simimds.Text(der)
}

func TestVerifySaysWhatTheDocumentSays(t *testing.T) {
	east, west, rotated := authorities()[0], authorities()[1], authorities()[2]
	doc := simimds.Document(instance())
	for name, tc := range map[string]struct {
		signer *simimds.Authority
		file   []byte
	}{
		"one certificate":            {east, east.Pinned()},
		"among others":               {east, append(west.Pinned(), east.Pinned()...)},
		"the older of a region's":    {east, append(rotated.Pinned(), east.Pinned()...)},
		"the newer of a region's":    {rotated, append(rotated.Pinned(), east.Pinned()...)},
		"a file with Windows' lines": {east, bytes.ReplaceAll(east.Pinned(), []byte("\n"), []byte("\r\n"))},
	} {
		t.Run(name, func(t *testing.T) {
			signature := sign(t, tc.signer, doc)
			got, err := parse(t, tc.file).Verify(doc, signature)
			want := runner.HostIdentity{
				Document: runner.DigestOf(doc), Signature: runner.DigestOf(signature), Certificate: runner.DigestOf(tc.signer.Cert.Raw),
				InstanceID: "i-0123456789abcdef0", AccountID: "111122223333", Region: "us-east-1", ImageID: "ami-0b0771e0c4e7b0771",
				InstanceType: "m6i.large", PrivateIP: "10.0.1.2", PendingTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			}
			if err != nil || got != want {
				t.Errorf("Verify = %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	east, west, other := authorities()[0], authorities()[1], authorities()[2]
	doc := simimds.Document(instance())
	genuine := sign(t, east, doc)
	substitute := instance()
	substitute.ID = "i-0fffffffffffffff0"
	elsewhere := instance()
	elsewhere.Region = "us-west-2"
	for name, tc := range map[string]struct {
		doc, signature []byte
		want           error
	}{
		"a changed document":               {bytes.Replace(doc, []byte("i-0123"), []byte("i-0124"), 1), genuine, identitydoc.ErrSignature},
		"one more space":                   {append(bytes.Clone(doc), '\n'), genuine, identitydoc.ErrSignature},
		"a genuine signature of another":   {doc, sign(t, east, simimds.Document(substitute)), identitydoc.ErrSignature},
		"a certificate that is not pinned": {doc, sign(t, other, doc), identitydoc.ErrSignature},
		"another region's certificate":     {doc, sign(t, west, doc), identitydoc.ErrSignature},
		"a region that is not pinned":      {simimds.Document(withRegion("eu-west-1")), genuine, identitydoc.ErrRegion},
		"a region that others sign for":    {simimds.Document(elsewhere), sign(t, east, simimds.Document(elsewhere)), identitydoc.ErrSignature},
		"no signer":                        {doc, signedData(t, doc, func(*pkcs7.SignedData) {}), identitydoc.ErrSignature},
		"two signers":                      {doc, signedData(t, doc, func(sd *pkcs7.SignedData) { addSigner(t, sd, east); addSigner(t, sd, east) }), identitydoc.ErrSignature},
		"two signers, one pinned":          {doc, signedData(t, doc, func(sd *pkcs7.SignedData) { addSigner(t, sd, east); addSigner(t, sd, other) }), identitydoc.ErrSignature},
		"SHA-512": {doc, signedData(t, doc, func(sd *pkcs7.SignedData) {
			sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA512)
			addSigner(t, sd, east)
		}), identitydoc.ErrSignature},
		"without the document inside":          {doc, signedData(t, doc, func(sd *pkcs7.SignedData) { addSigner(t, sd, east); sd.Detach() }), identitydoc.ErrSignature},
		"an empty signature":                   {doc, nil, identitydoc.ErrMalformed},
		"a signature that is not base64":       {doc, []byte("-----BEGIN PKCS7-----\n"), identitydoc.ErrMalformed},
		"base64 of something else":             {doc, []byte("AAAA"), identitydoc.ErrMalformed},
		"an endless signature":                 {doc, bytes.Repeat([]byte("A"), identitydoc.MaxSize+1), identitydoc.ErrMalformed},
		"an endless document":                  {bytes.Repeat([]byte(" "), identitydoc.MaxSize+1), genuine, identitydoc.ErrMalformed},
		"signed text that is no document":      {[]byte("{}"), sign(t, east, []byte("{}")), identitydoc.ErrMalformed},
		"a signed document with two instances": signedOdd(t, doc, `"kernelId" : null`, `"instanceId" : "i-0fffffffffffffff0"`),
		"a name in other case":                 signedOdd(t, doc, `"kernelId" : null`, `"InstanceId" : "i-0fffffffffffffff0"`),
		"an unknown field":                     signedOdd(t, doc, `"kernelId" : null`, `"note" : "x"`),
		"a field that is missing":              signedOdd(t, doc, `"architecture" : "x86_64",`, ``),
		"null where a value has to be":         signedOdd(t, doc, `"x86_64"`, `null`),
		"a number for an account":              signedOdd(t, doc, `"111122223333"`, `111122223333`),
		"another version":                      signedOdd(t, doc, `2017-09-30`, `2031-01-01`),
		"a time that cannot be":                signedOdd(t, doc, `2026-01-02T`, `2026-13-02T`),
		"a list for a name":                    signedOdd(t, doc, `"m6i.large"`, `["m6i.large"]`),
		"free text among the product codes":    signedOdd(t, doc, `"billingProducts" : null`, `"billingProducts" : ["a patient"]`),
		"something after it":                   signedOdd(t, doc, "\n}", "\n} {}"),
		"no end":                               signedOdd(t, doc, "\n}", "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(t, append(west.Pinned(), east.Pinned()...)).Verify(tc.doc, tc.signature)
			if !errors.Is(err, tc.want) || got != (runner.HostIdentity{}) {
				t.Errorf("Verify = %+v, %v, want nothing and %v", got, err, tc.want)
			}
		})
	}
}

func withRegion(region string) simimds.Instance {
	in := instance()
	in.Region = region
	return in
}

func addSigner(t *testing.T, sd *pkcs7.SignedData, a *simimds.Authority) {
	t.Helper()
	if err := sd.AddSigner(a.Cert, a.Key, pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
}

// signedOdd is a document that nothing but its own form speaks against.
func signedOdd(t *testing.T, doc []byte, from, to string) (odd struct {
	doc, signature []byte
	want           error
}) {
	t.Helper()
	odd.doc = bytes.Replace(doc, []byte(from), []byte(to), 1)
	if bytes.Equal(odd.doc, doc) {
		t.Fatalf("%s is not in the document", from)
	}
	odd.signature, odd.want = sign(t, authorities()[0], odd.doc), identitydoc.ErrMalformed
	return odd
}

// The certificates in the signature vouch for nothing: this one holds a bag
// with the very certificate that signed it, under the pinned one's name.
func TestTheBagOfCertificatesIsNotBelieved(t *testing.T) {
	east, other := authorities()[0], authorities()[2]
	doc := simimds.Document(instance())
	forged := signedData(t, doc, func(sd *pkcs7.SignedData) { addSigner(t, sd, other) })
	der, err := base64.StdEncoding.DecodeString(string(forged))
	if err != nil {
		t.Fatal(err)
	}
	p, err := pkcs7.Parse(der)
	if err != nil || len(p.Certificates) != 1 || p.Verify() != nil {
		t.Fatalf("the forgery does not verify by itself (%v): the test shows nothing", err)
	}
	if _, err := parse(t, east.Pinned()).Verify(doc, forged); !errors.Is(err, identitydoc.ErrSignature) {
		t.Errorf("Verify = %v, want ErrSignature", err)
	}
}

func TestCertificateFilesAreReadStrictly(t *testing.T) {
	good := string(authorities()[0].Pinned())
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil && os.Getenv(fipsOnly) == "" {
		t.Fatal(err)
	}
	block := strings.TrimPrefix(good, "# us-east-1\n")
	n := strings.Count(good, "\n") // the last line is empty
	tests := map[string]struct {
		file string
		line int
	}{
		"a certificate without a region": {block, 1},
		"a region without a certificate": {"# eu-west-1\n" + good, 2},
		"a region at the end":            {good + "# eu-west-1\n", n + 1},
		"a comment that names no region": {"# the certificates of AWS\n" + good, 1},
		"an unknown line":                {good + "us-east-1\n", n + 1},
		"a private key":                  {"# us-east-1\n-----BEGIN PRIVATE KEY-----\n", 2},
		"a certificate that ends early":  {strings.Replace(good, "-----END CERTIFICATE-----", "", 1), n},
		"a certificate with headers":     {strings.Replace(good, "CERTIFICATE-----\n", "CERTIFICATE-----\nA: b\n\n", 1), n + 1},
		"noise for a certificate":        {"# us-east-1\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 4},
		"the same certificate twice":     {good + good, 2*n - 1},
	}
	if err == nil {
		weak, err := simimds.NewAuthority("us-east-1", small)
		if err != nil {
			t.Fatal(err)
		}
		tests["RSA of 1024 bits"] = struct {
			file string
			line int
		}{string(weak.Pinned()), strings.Count(string(weak.Pinned()), "\n") - 1}
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := identitydoc.ParseCertificates([]byte(tc.file))
			wrong, ok := errors.AsType[*identitydoc.LineError](err)
			if !ok || got != nil || wrong.Line != tc.line {
				t.Errorf("ParseCertificates = %v, %v, want a mistake on line %d", got, err, tc.line)
			}
		})
	}
	if got, err := identitydoc.ParseCertificates([]byte("\n\n")); err == nil {
		t.Errorf("ParseCertificates of nothing = %v, want an error", got)
	}
}

// genuine is a document that AWS signed, and AWS's certificates. They are not
// in the repository.
func genuine(t *testing.T) (doc, signature, certificates []byte) {
	t.Helper()
	dir := os.Getenv("RUNNERWARD_AWS_IID_DIR")
	if dir == "" {
		dir = sharedData(t)
	}
	signature, err := os.ReadFile(filepath.Join(dir, "us-west-2.rsa2048.b64"))
	if err != nil {
		t.Skipf("no document that AWS signed: %v (set RUNNERWARD_AWS_IID_DIR to a folder with us-west-2.rsa2048.b64 and regional-certificates.pem)", err)
	}
	if certificates, err = os.ReadFile(filepath.Join(dir, "regional-certificates.pem")); err != nil {
		t.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString(string(signature))
	if err != nil {
		t.Fatal(err)
	}
	p, err := pkcs7.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return p.Content, signature, certificates
}

// sharedData looks for the folder beside the repository or above it.
func sharedData(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for {
		data := filepath.Join(dir, "shared", "data", "aws-iid")
		if _, err := os.Stat(data); err == nil || dir == filepath.Dir(dir) {
			return data
		}
		dir = filepath.Dir(dir)
	}
}

func TestADocumentThatAWSSigned(t *testing.T) {
	doc, signature, file := genuine(t)
	certs := parse(t, file)
	var says struct {
		InstanceID, AccountID, Region, ImageID, InstanceType, PrivateIP string
		PendingTime                                                     time.Time
	}
	if err := json.Unmarshal(doc, &says); err != nil {
		t.Fatal(err)
	}
	got, err := certs.Verify(doc, signature)
	if err != nil || got.Region != "us-west-2" || got.InstanceID != says.InstanceID || got.AccountID != says.AccountID || got.ImageID != says.ImageID ||
		got.PrivateIP != says.PrivateIP || got.InstanceType != says.InstanceType || !got.PendingTime.Equal(says.PendingTime) {
		t.Errorf("Verify = %+v, %v, want what %s says", got, err, doc)
	}
	if n := len(certs.Regions()); n < 30 {
		t.Errorf("%d regions in AWS's certificates, want more than 30", n)
	}
	der, err := base64.StdEncoding.DecodeString(string(signature))
	if err != nil {
		t.Fatal(err)
	}
	// Another instance of the same length, so that it still parses.
	id := []byte(says.InstanceID)
	otherID := bytes.Clone(id)
	otherID[len(otherID)-1] ^= 1
	substituted := bytes.Replace(der, id, otherID, 1)
	flipped := bytes.Clone(der)
	flipped[len(flipped)-20] ^= 1
	unsigned := signedData(t, doc, func(*pkcs7.SignedData) {})
	for name, tc := range map[string]struct {
		doc, signature []byte
		want           error
	}{
		"changed":                      {bytes.Replace(doc, []byte(says.PrivateIP), []byte("10.255.255.255"), 1), signature, identitydoc.ErrSignature},
		"another region":               {bytes.Replace(doc, []byte(`"us-west-2"`), []byte(`"us-east-1"`), 1), signature, identitydoc.ErrSignature},
		"changed within the signature": {doc, simimds.Text(substituted), identitydoc.ErrSignature},
		"changed alike on both sides":  {bytes.Replace(doc, id, otherID, 1), simimds.Text(substituted), identitydoc.ErrSignature},
		"a flipped bit":                {doc, simimds.Text(flipped), identitydoc.ErrSignature},
		"unsigned":                     {doc, unsigned, identitydoc.ErrSignature},
		"another document":             {simimds.Document(withRegion("us-west-2")), signature, identitydoc.ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := certs.Verify(tc.doc, tc.signature); !errors.Is(err, tc.want) || got != (runner.HostIdentity{}) {
				t.Errorf("Verify = %+v, %v, want nothing and %v", got, err, tc.want)
			}
		})
	}
	t.Run("with another region's certificate alone", func(t *testing.T) {
		name := []byte("# us-west-2\n")
		at := bytes.Index(file, name)
		swapped := bytes.Replace(file[:at], []byte("# us-east-1\n"), name, 1)
		if _, err := parse(t, swapped).Verify(doc, signature); !errors.Is(err, identitydoc.ErrSignature) {
			t.Errorf("Verify = %v, want ErrSignature", err)
		}
		without := bytes.Replace(file, name, []byte("# xx-test-9\n"), 1)
		if _, err := parse(t, without).Verify(doc, signature); !errors.Is(err, identitydoc.ErrRegion) {
			t.Errorf("Verify = %v, want ErrRegion", err)
		}
	})
}

// TestEverythingWorksUnderFIPSOnly runs the tests of this file again in a
// process where any algorithm that FIPS 140-3 does not approve fails.
// https://go.dev/doc/security/fips140
func TestEverythingWorksUnderFIPSOnly(t *testing.T) {
	if os.Getenv(fipsOnly) != "" {
		t.Skip("this is the child")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "TestVerify|TestADocument|TestTheBag|TestCertificateFiles", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only", fipsOnly+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestVerifySaysWhatTheDocumentSays")) {
		t.Errorf("under GODEBUG=fips140=only: %v\n%s", err, out)
	}
}

func FuzzVerify(f *testing.F) {
	east := authorities()[0]
	certs, err := identitydoc.ParseCertificates(east.Pinned())
	if err != nil {
		f.Fatal(err)
	}
	doc := simimds.Document(instance())
	signature, err := east.Sign(doc)
	if err != nil {
		f.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString(string(signature))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc, der)
	f.Add(doc, []byte{0x30, 0x80, 0x30, 0x80, 0, 0, 0, 0})
	f.Add([]byte(`{"region":"us-east-1"}`), der[:len(der)/2])
	f.Add(doc, bytes.Repeat([]byte{0x30, 0x80}, 4096))
	f.Fuzz(func(t *testing.T, d, s []byte) {
		got, err := certs.Verify(d, simimds.Text(s))
		if err == nil && (!bytes.Equal(d, doc) || got.InstanceID != "i-0123456789abcdef0") {
			t.Errorf("Verify takes a document that nobody signed: %q", d)
		}
		if err != nil && got != (runner.HostIdentity{}) {
			t.Errorf("Verify = %+v and %v", got, err)
		}
	})
}

func FuzzParseCertificates(f *testing.F) {
	good := authorities()[0].Pinned()
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte("# us-east-1\n-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		c, err := identitydoc.ParseCertificates(file)
		if (err == nil) != (c != nil) || err == nil && len(c.Regions()) == 0 {
			t.Errorf("ParseCertificates = %v, %v", c, err)
		}
	})
}
