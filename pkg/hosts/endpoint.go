package hosts

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// checkEndpoints refuses what the SDK finds out only when a call is made:
//
// With FIPS endpoints on, any custom endpoint fails each call ("FIPS and custom
// endpoint are not supported", the rules in the SDK's endpoints.go). And where
// AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is set, the SDK passes over the endpoint
// that it was given too, and would talk to AWS instead.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
func checkEndpoints(ctx context.Context, cfg aws.Config, endpoint string) error {
	if endpoint != "" && aws.ToString(cfg.BaseEndpoint) != endpoint {
		return fmt.Errorf("the endpoint %s would not be used, because AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"+
			" or ignore_configured_endpoint_urls of the profile is set: unset it, or give no endpoint", endpoint)
	}
	fips, err := usesFIPS(ctx, cfg)
	if err != nil || !fips {
		return err
	}
	custom, err := customEndpoints(ctx, cfg)
	if err != nil || len(custom) == 0 {
		return err
	}
	return fmt.Errorf("FIPS endpoints are on (AWS_USE_FIPS_ENDPOINT, or use_fips_endpoint of the profile) together with a custom endpoint (%s),"+
		" which AWS's SDK refuses: for AWS's own FIPS endpoints remove the custom one (hosts.endpoint, AWS_ENDPOINT_URL and its kin);"+
		" or set AWS_USE_FIPS_ENDPOINT=false and name a FIPS endpoint yourself, such as https://ec2-fips.%s.amazonaws.com in AWS_ENDPOINT_URL_EC2",
		strings.Join(custom, ", "), cfg.Region)
}

// usesFIPS asks the sources of the configuration in their order; the first that
// knows decides, as in the SDK.
func usesFIPS(ctx context.Context, cfg aws.Config) (bool, error) {
	for _, source := range cfg.ConfigSources {
		asked, ok := source.(interface {
			GetUseFIPSEndpoint(context.Context) (aws.FIPSEndpointState, bool, error)
		})
		if !ok {
			continue
		}
		state, found, err := asked.GetUseFIPSEndpoint(ctx)
		if err != nil {
			return false, fmt.Errorf("find out whether FIPS endpoints are on: %w", err)
		}
		if found {
			return state == aws.FIPSEndpointStateEnabled, nil
		}
	}
	return false, nil
}

// customEndpoints are the endpoints that replace AWS's own, for every service
// or for one that the daemon may call.
func customEndpoints(ctx context.Context, cfg aws.Config) ([]string, error) {
	var out []string
	if cfg.BaseEndpoint != nil {
		out = append(out, *cfg.BaseEndpoint)
	}
	ignored, found, err := config.GetIgnoreConfiguredEndpoints(ctx, cfg.ConfigSources)
	if err != nil {
		return nil, fmt.Errorf("find out whether endpoints are ignored: %w", err)
	}
	if found && ignored {
		return out, nil
	}
	for _, service := range []string{"Auto Scaling", "EC2", "EKS", "IAM", "KMS", "S3", "SSM", "STS"} {
		for _, source := range cfg.ConfigSources {
			asked, ok := source.(interface {
				GetServiceBaseEndpoint(context.Context, string) (string, bool, error)
			})
			if !ok {
				continue
			}
			endpoint, found, err := asked.GetServiceBaseEndpoint(ctx, service)
			if err != nil {
				return nil, fmt.Errorf("find the endpoint of %s: %w", service, err)
			}
			if found {
				out = append(out, endpoint+" for "+service)
				break
			}
		}
	}
	return out, nil
}
