module github.com/runnerward/runnerward/test/conformance/v010

go 1.26.0

require (
	github.com/actions/scaleset v0.4.0
	github.com/runnerward/runnerward v0.0.0
)

require (
	github.com/go-jose/go-jose/v4 v4.1.8 // indirect
	github.com/golang-jwt/jwt/v4 v4.5.2 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/hashicorp/go-retryablehttp v0.7.8 // indirect
)

replace github.com/runnerward/runnerward => ../../..

// The client as it was first published, in February 2026.
replace github.com/actions/scaleset => github.com/actions/scaleset v0.1.0
