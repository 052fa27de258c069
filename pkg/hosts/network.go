package hosts

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/runnerward/runnerward/pkg/runner"
)

const (
	// factsFor is how long what hardly changes is believed: whether a subnet is
	// private, which image a public parameter names, which activity ends a host.
	// After it, what cannot be learned anew is unknown.
	factsFor = 5 * time.Minute
	// missesFor is how long a question that was not answered is not repeated.
	missesFor = time.Minute
)

// remembered keeps facts until they are too old. It is safe for concurrent use.
type remembered[V any] struct {
	mu  sync.Mutex
	all map[string]fact[V]
}

type fact[V any] struct {
	value V
	until time.Time
}

func (r *remembered[V]) get(key string, now time.Time) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.all[key]
	return f.value, ok && now.Before(f.until)
}

// set keeps a fact for [factsFor].
func (r *remembered[V]) set(key string, value V, now time.Time) { r.keep(key, value, now, factsFor) }

func (r *remembered[V]) keep(key string, value V, now time.Time, life time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[string]fact[V]{}
	}
	maps.DeleteFunc(r.all, func(_ string, f fact[V]) bool { return !now.Before(f.until) })
	r.all[key] = fact[V]{value, now.Add(life)}
}

// addSubnets says of each instance whether its subnet is private.
func (m *machines) addSubnets(ctx context.Context, ids []string, into map[string]runner.Instance) error {
	var unknown []string
	for _, id := range ids {
		subnet := into[id].Subnet
		if _, known := m.subnets.get(subnet, time.Now()); subnet != "" && !known && !slices.Contains(unknown, subnet) {
			unknown = append(unknown, subnet)
		}
	}
	var problem error
	for chunk := range slices.Chunk(unknown, filterChunk) {
		if problem = m.learnSubnets(ctx, chunk); problem != nil {
			break
		}
	}
	for _, id := range ids {
		in := into[id]
		if private, known := m.subnets.get(in.Subnet, time.Now()); known {
			in.PrivateSubnet = &private
			into[id] = in
		}
	}
	return problem
}

// learnSubnets: a subnet is private if it gives out no public address and its
// route table leads to no internet gateway. Without a table of its own it follows
// the VPC's main table:
// https://docs.aws.amazon.com/vpc/latest/userguide/subnet-route-tables.html
func (m *machines) learnSubnets(ctx context.Context, ids []string) error {
	found := map[string]types.Subnet{}
	var vpcs []string
	pages := ec2.NewDescribeSubnetsPaginator(m.ec2, &ec2.DescribeSubnetsInput{Filters: byID("subnet-id", ids)})
	for pages.HasMorePages() {
		page, err := nextPage(ctx, m, pages.NextPage)
		if err != nil {
			return fmt.Errorf("describe subnets: %w", err)
		}
		for _, sn := range page.Subnets {
			found[aws.ToString(sn.SubnetId)] = sn
			vpcs = append(vpcs, aws.ToString(sn.VpcId))
		}
	}
	if len(found) == 0 {
		return nil
	}
	slices.Sort(vpcs)
	own, err := m.routeTables(ctx, byID("association.subnet-id", ids))
	if err != nil {
		return err
	}
	main, err := m.routeTables(ctx, append(byID("association.main", []string{"true"}), byID("vpc-id", slices.Compact(vpcs))...))
	if err != nil {
		return err
	}
	for id, sn := range found {
		table, known := tableOf(id, aws.ToString(sn.VpcId), own, main)
		if !known || sn.MapPublicIpOnLaunch == nil {
			continue
		}
		m.subnets.set(id, !*sn.MapPublicIpOnLaunch && !opensToInternet(table), time.Now())
	}
	return nil
}

func (m *machines) routeTables(ctx context.Context, filters []types.Filter) ([]types.RouteTable, error) {
	var out []types.RouteTable
	pages := ec2.NewDescribeRouteTablesPaginator(m.ec2, &ec2.DescribeRouteTablesInput{Filters: filters})
	for pages.HasMorePages() {
		page, err := nextPage(ctx, m, pages.NextPage)
		if err != nil {
			return nil, fmt.Errorf("describe route tables: %w", err)
		}
		out = append(out, page.RouteTables...)
	}
	return out, nil
}

func tableOf(subnet, vpc string, own, main []types.RouteTable) (types.RouteTable, bool) {
	for _, t := range own {
		if slices.ContainsFunc(t.Associations, func(as types.RouteTableAssociation) bool { return aws.ToString(as.SubnetId) == subnet }) {
			return t, true
		}
	}
	i := slices.IndexFunc(main, func(t types.RouteTable) bool { return aws.ToString(t.VpcId) == vpc })
	if i < 0 {
		return types.RouteTable{}, false
	}
	return main[i], true
}

// opensToInternet: a subnet is private if it "does not have a direct route to an
// internet gateway", whatever range or prefix list such a route is for: two halves
// of the world are the world, and what a list holds changes without us.
// https://docs.aws.amazon.com/vpc/latest/userguide/configure-subnets.html
// An egress-only gateway (eigw-) and a NAT gateway lead out alone.
func opensToInternet(t types.RouteTable) bool {
	return slices.ContainsFunc(t.Routes, func(r types.Route) bool {
		return strings.HasPrefix(aws.ToString(r.GatewayId), "igw-")
	})
}
