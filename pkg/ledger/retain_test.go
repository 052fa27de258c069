package ledger_test

import (
	"testing"
	"time"

	"github.com/runnerward/runnerward/pkg/evidence"
	"github.com/runnerward/runnerward/pkg/ledger"
)

func TestAYearEndsAtOnceSixYearsLater(t *testing.T) {
	tokyo := time.FixedZone("JST", 9*3600)
	for _, tc := range []struct {
		name  string
		at    time.Time
		slack int
		want  string
	}{
		{"in the year", time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC), 0, "2033-01-01"},
		{"its first moment", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 0, "2033-01-01"},
		{"its last moment", time.Date(2026, 12, 31, 23, 59, 59, 999999999, time.UTC), 0, "2033-01-01"},
		{"the next moment", time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), 0, "2034-01-01"},
		{"the year is that of UTC", time.Date(2027, 1, 1, 8, 0, 0, 0, tokyo), 0, "2033-01-01"},
		{"a leap day", time.Date(2028, 2, 29, 12, 0, 0, 0, time.UTC), 0, "2035-01-01"},
		{"the slack is whole days", time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC), 30, "2033-01-31"},
		{"the slack goes on over a leap day", time.Date(2029, 6, 15, 12, 0, 0, 0, time.UTC), 60, "2036-03-01"},
	} {
		got := ledger.RetainUntil(tc.at, tc.slack)
		if want := tc.want + "T00:00:00Z"; got.Format(time.RFC3339Nano) != want {
			t.Errorf("%s: RetainUntil(%s, %d) = %s, want %s", tc.name, tc.at, tc.slack, got.Format(time.RFC3339Nano), want)
		}
	}
}

func TestAShardIsKeptAsAWhole(t *testing.T) {
	for _, tc := range []struct{ name, at, want string }{
		{"seg/00000000000000000000", "2026-06-15", "2033-01-31"},
		{"2027/seg/00000000000000000000", "2027-06-15", "2034-01-31"},
		{"2027/blobs/sha256/ab", "2026-12-31", "2034-01-31"},                  // its clock is behind
		{"2027/checkpoints/00000000000000000001", "2028-01-01", "2035-01-31"}, // it comes late
		{"seg/00000000000000000009", "2027-01-01", "2034-01-31"},
	} {
		at, err := time.Parse(time.DateOnly, tc.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := ledger.RetainObject(tc.name, at, 30).Format(time.DateOnly); got != tc.want {
			t.Errorf("RetainObject(%s, %s) = %s, want %s", tc.name, tc.at, got, tc.want)
		}
	}
}

// TestNothingIsKeptForLessThanSixCalendarYears goes over more than a century of
// days, with a leap year that is left out.
func TestNothingIsKeptForLessThanSixCalendarYears(t *testing.T) {
	most, least := 0, 1<<30
	for at := time.Date(2026, 1, 1, 23, 59, 59, 0, time.UTC); at.Year() < 2140; at = at.AddDate(0, 0, 1) {
		until := ledger.RetainUntil(at, 0)
		if until.Before(at.AddDate(evidence.RetainYears, 0, 0)) {
			t.Fatalf("RetainUntil(%s) = %s, less than six years", at, until)
		}
		if at.YearDay() == 1 {
			end := time.Date(at.Year()+1, 1, 1, 0, 0, 0, 0, time.UTC)
			days := int(until.Sub(end).Hours() / 24)
			most, least = max(most, days), min(least, days)
		}
	}
	if most != 2192 || least != 2190 {
		t.Errorf("six calendar years have %d to %d days, want 2190 to 2192", least, most)
	}
}
