package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
)

func (v *validation) ledger() {
	l := v.Ledger
	switch inS3 := l.S3 != (S3{SlackDays: defaultSlackDays}); {
	case inS3 && l.Dir != "":
		v.report("ledger.dir", "given besides s3", "keep one of them; records in COMPLIANCE mode can be removed by nobody")
	case inS3:
		v.s3()
	case l.Dir == "":
		v.report("ledger", "neither dir nor s3 says where the evidence is", "give ledger.s3.bucket and its other keys, or ledger.dir")
	default:
		v.shaped("ledger.dir", l.Dir, isAnyText)
	}
	v.ledgerKeys()
	v.spool(l)
	v.shaped("ledger.rootFile", l.RootFile, isAnyText)
	v.shaped("ledger.origin", l.Origin, isOrigin)
	v.folder("policy.dir", v.Policy.Dir, existing)
}

// ledgerKeys wants the keys in a folder or in KMS.
func (v *validation) ledgerKeys() {
	l := v.Ledger
	switch inKMS := l.KMS != (LedgerKMS{}); {
	case inKMS && l.KeysDir != "":
		v.report("ledger.keysDir", "given besides ledger.kms", "keep one of them; docs/keys.md says how to move to KMS")
		return
	case inKMS:
		v.ledgerKMS()
		return
	}
	v.shaped("ledger.keysDir", l.KeysDir, isAnyText)
	if l.Dir != "" && l.Dir == l.KeysDir {
		v.report("ledger.keysDir", "the same folder as ledger.dir", "keep keys apart from what is copied to auditors")
	}
	v.folder("ledger.keysDir", l.KeysDir, private)
}

func (v *validation) ledgerKMS() {
	k := v.Ledger.KMS
	v.shaped("ledger.kms.recordKey", k.RecordKey, isKMSKey)
	v.shaped("ledger.kms.checkpointKey", k.CheckpointKey, isKMSKey)
	region := k.Region
	if region != "" {
		v.shaped("ledger.kms.region", region, isRegion)
	}
	for _, arn := range []struct{ key, value, current string }{
		{"ledger.kms.recordKey", k.RecordKey, ""},
		{"ledger.kms.checkpointKey", k.CheckpointKey, ""},
		{"ledger.kms.previousRecordKey", k.PreviousRecordKey, k.RecordKey},
		{"ledger.kms.previousCheckpointKey", k.PreviousCheckpointKey, k.CheckpointKey},
	} {
		switch {
		case arn.value == "":
		case arn.value == arn.current:
			v.report(arn.key, "the same key as the one that takes over", "make a new key, or take this line out")
		case arn.current != "":
			v.shaped(arn.key, arn.value, isKMSKey)
		}
		if !isKMSKey.pattern.MatchString(arn.value) {
			continue
		}
		of := strings.Split(arn.value, ":")[3]
		region = cmp.Or(region, of)
		if of != region {
			v.report(arn.key, fmt.Sprintf("in region %s, the others are in %s", of, region), "give keys of one region: KMS is called there")
		}
	}
	if k.PreviousKeysDir != "" && k.PreviousRecordKey+k.PreviousCheckpointKey != "" {
		v.report("ledger.kms.previousKeysDir", "given besides previous keys in KMS", "keep those that signed last")
	}
	if k.PreviousKeysDir != "" && k.PreviousKeysDir == v.Ledger.Dir {
		v.report("ledger.kms.previousKeysDir", "the same folder as ledger.dir", "keep keys apart from what is copied to auditors")
	}
	v.folder("ledger.kms.previousKeysDir", k.PreviousKeysDir, private)
	if k.Endpoint != "" {
		v.https("ledger.kms.endpoint", k.Endpoint)
	}
}

func (v *validation) s3() {
	s := v.Ledger.S3
	v.shaped("ledger.s3.bucket", s.Bucket, isBucket)
	v.shaped("ledger.s3.viewBucket", s.ViewBucket, isBucket)
	if s.Bucket != "" && s.Bucket == s.ViewBucket {
		v.report("ledger.s3.viewBucket", "the same bucket as ledger.s3.bucket",
			"give the view a bucket without Object Lock: it is rewritten with every record, and each version would be kept for years")
	}
	for key, prefix := range map[string]string{"ledger.s3.prefix": s.Prefix, "ledger.s3.viewPrefix": s.ViewPrefix} {
		if prefix != "" {
			v.shaped(key, prefix, isPrefix)
		}
	}
	v.shaped("ledger.s3.region", s.Region, isRegion)
	v.shaped("ledger.s3.bucketOwner", s.BucketOwner, isAccount)
	if s.Endpoint != "" {
		v.https("ledger.s3.endpoint", s.Endpoint)
	}
	v.readable("ledger.s3.caFile", s.CAFile, optional)
	v.between("ledger.s3.slackDays", s.SlackDays, 7, 366)
}

// spool wants a folder of its own: what an auditor copies and what signs is
// neither, and a record that waits is not yet evidence.
func (v *validation) spool(l Ledger) {
	const key = "ledger.spoolDir"
	if l.SpoolDir == "" {
		if l.S3.Bucket != "" {
			v.report(key, "missing", "give a folder on this machine's own disk, where records of ending hosts wait while S3 is away")
		}
		return
	}
	v.shaped(key, l.SpoolDir, isAnyText)
	if !filepath.IsAbs(l.SpoolDir) {
		v.report(key, fmt.Sprintf("%.100q depends on where the daemon is started", l.SpoolDir), "give an absolute path")
	}
	for _, other := range []struct{ key, dir string }{{"ledger.dir", l.Dir}, {"ledger.keysDir", l.KeysDir}} {
		if inside(l.SpoolDir, other.dir) || inside(other.dir, l.SpoolDir) {
			v.report(key, "in one folder with "+other.key, "keep them apart, on a disk that outlives the daemon")
		}
	}
	v.folder(key, l.SpoolDir, private)
}

// inside says that the path is the folder or under it.
func inside(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return folder != "" && path != "" && err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
