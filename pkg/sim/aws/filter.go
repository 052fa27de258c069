package simaws

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// filter is one Filter.n of an EC2 request.
type filter struct {
	name   string
	values []string
}

// maxFilterValues: "you can specify up to 200 values per filter",
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
const maxFilterValues = 200

func parseFilters(form url.Values) []filter {
	var out []filter
	for n := 1; ; n++ {
		prefix := "Filter." + strconv.Itoa(n)
		if !form.Has(prefix + ".Name") {
			return out
		}
		out = append(out, filter{form.Get(prefix + ".Name"), list(form, prefix+".Value")})
	}
}

// filters reads the filters and refuses the names that the action does not know.
func filters(form url.Values, known ...string) ([]filter, error) {
	fs := parseFilters(form)
	for _, f := range fs {
		if !slices.Contains(known, f.name) && !(strings.HasPrefix(f.name, "tag:") && slices.Contains(known, "tag:")) {
			return nil, invalidValue("The filter '%s' is invalid", f.name)
		}
		if len(f.values) > maxFilterValues {
			return nil, &apiError{http.StatusBadRequest, "FilterLimitExceeded",
				fmt.Sprintf("The maximum number of filter values specified on a single call is %d", maxFilterValues)}
		}
	}
	return fs, nil
}

// matches says whether every filter has a value that one of the resource's
// values matches. A filter without values matches nothing.
func matches(fs []filter, valuesOf func(name string) []string) bool {
	for _, f := range fs {
		if !slices.ContainsFunc(valuesOf(f.name), func(v string) bool { return f.accepts(v) }) {
			return false
		}
	}
	return true
}

// accepts compares with the wildcards * and ?: "filter values are case
// sensitive ... you can also use wildcards with the filter values".
func (f filter) accepts(v string) bool {
	return slices.ContainsFunc(f.values, func(pattern string) bool {
		if !strings.ContainsAny(pattern, "*?") {
			return pattern == v
		}
		quoted := regexp.QuoteMeta(pattern)
		quoted = strings.ReplaceAll(strings.ReplaceAll(quoted, `\*`, ".*"), `\?`, ".")
		ok, err := regexp.MatchString(`(?s)\A`+quoted+`\z`, v)
		return err == nil && ok
	})
}

// limits are the sizes of a page.
type limits struct{ least, most, usual int }

// page cuts out the page that the request asks for. Tokens are opaque.
func page[T any](all []T, form url.Values, sizeKey string, l limits) ([]T, string, error) {
	size, offset := l.usual, 0
	if form.Has(sizeKey) {
		n, err := strconv.Atoi(form.Get(sizeKey))
		if err != nil || n < l.least || n > l.most {
			return nil, "", invalidValue("Value ( %s ) for parameter %s is invalid. Expecting a value between %d and %d.",
				form.Get(sizeKey), sizeKey, l.least, l.most)
		}
		size = n
	}
	if token := form.Get("NextToken"); token != "" {
		b, err := base64.RawURLEncoding.DecodeString(token)
		n, convErr := strconv.Atoi(string(b))
		if err != nil || convErr != nil || n < 0 {
			return nil, "", &apiError{http.StatusBadRequest, "InvalidPaginationToken", "The specified pagination token is not valid or is expired."}
		}
		offset = n
	}
	all = all[min(offset, len(all)):]
	if size == 0 || len(all) <= size {
		return all, "", nil
	}
	return all[:size], base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(offset + size))), nil
}

func invalidValue(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "InvalidParameterValue", fmt.Sprintf(format, args...)}
}
