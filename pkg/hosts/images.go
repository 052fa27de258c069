package hosts

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/runnerward/runnerward/pkg/runner"
)

// parameterChunk is the most that GetParameters takes:
// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
const parameterChunk = 10

// addParameters says which images the configured public parameters name now:
// https://bottlerocket.dev/en/os/latest/#/install/quickstart/aws/
// A parameter that does not exist, or has another value than an image id, stays
// unresolved.
func (m *machines) addParameters(ctx context.Context, ids []string, into map[string]runner.Instance) error {
	if len(ids) == 0 || len(m.parameters) == 0 {
		return nil
	}
	var unknown []string
	for _, name := range m.parameters {
		if _, known := m.images.get(name, time.Now()); !known {
			unknown = append(unknown, name)
		}
	}
	var problem error
	for chunk := range slices.Chunk(unknown, parameterChunk) {
		if problem = m.learnImages(ctx, chunk); problem != nil {
			break
		}
	}
	resolved := map[string]string{}
	for _, name := range m.parameters {
		if image, known := m.images.get(name, time.Now()); known {
			resolved[name] = image
		}
	}
	for _, id := range ids {
		in := into[id]
		in.ParameterImages = maps.Clone(resolved)
		into[id] = in
	}
	return problem
}

func (m *machines) learnImages(ctx context.Context, names []string) error {
	ctx, cancel := m.call(ctx)
	defer cancel()
	out, err := m.ssm.GetParameters(ctx, &ssm.GetParametersInput{Names: names})
	if err != nil {
		return fmt.Errorf("read public parameters: %w", because(ctx, err))
	}
	for _, p := range out.Parameters {
		if image := aws.ToString(p.Value); imageID.MatchString(image) {
			m.images.set(aws.ToString(p.Name), image, time.Now())
		}
	}
	return nil
}
