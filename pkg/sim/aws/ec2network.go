package simaws

import (
	"encoding/xml"
	"slices"
	"strings"
	"time"
)

// The account has one VPC. A subnet without a route table of its own follows
// the VPC's main table: "a subnet that's not explicitly associated with any
// route table is implicitly associated with the main route table",
// https://docs.aws.amazon.com/vpc/latest/userguide/subnet-route-tables.html
const (
	vpcID     = "vpc-0a1b2c3d4e5f60718"
	mainTable = "rtb-0a1b2c3d4e5f60718"
)

// Route is one way out of a subnet. Destination is a range of IPv4 or IPv6
// addresses or the id of a prefix list (pl-…), Gateway the id of what is behind
// it: igw-…, nat-…, vpce-… or local.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Route.html
type Route struct{ Destination, Gateway string }

// subnet is a subnet that some group names; own is nil when it follows the
// main table.
type subnet struct {
	id        string
	publicIPs bool // MapPublicIpOnLaunch
	tableID   string
	own       []Route
}

// privateRoutes lead out by a NAT gateway and nowhere in.
func privateRoutes() []Route {
	return []Route{{"10.0.0.0/16", "local"}, {"0.0.0.0/0", "nat-0a1b2c3d4e5f60718"}}
}

// SetRoutes gives the subnet a route table of its own, or none with no routes;
// an empty subnet id means the VPC's main table.
func (s *Server) SetRoutes(subnetID string, routes ...Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if subnetID == "" {
		s.mainRoutes = routes
		return
	}
	sn := s.subnet(subnetID)
	sn.own = routes
	if sn.tableID == "" {
		sn.tableID = s.resource("rtb-")
	}
}

// SetPublicIPs says whether the subnet gives a public address to what is
// launched in it.
func (s *Server) SetPublicIPs(subnetID string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subnet(subnetID).publicIPs = on
}

// subnet finds or makes the subnet. It needs the lock.
func (s *Server) subnet(id string) *subnet {
	i := slices.IndexFunc(s.subnets, func(sn *subnet) bool { return sn.id == id })
	if i < 0 {
		s.subnets = append(s.subnets, &subnet{id: id})
		i = len(s.subnets) - 1
	}
	return s.subnets[i]
}

// describeSubnets: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSubnets.html
func (s *Server) describeSubnets(c call, kind FaultKind, _ time.Time) (any, error) {
	fs, err := filters(c.form, "subnet-id", "vpc-id")
	if err != nil {
		return nil, err
	}
	ids := list(c.form, "SubnetId")
	for _, id := range ids {
		if !slices.ContainsFunc(s.subnets, func(sn *subnet) bool { return sn.id == id }) {
			return nil, &apiError{400, "InvalidSubnetID.NotFound", "The subnet ID '" + id + "' does not exist"}
		}
	}
	var found []*subnet
	for _, sn := range s.subnets {
		wanted := len(ids) == 0 || slices.Contains(ids, sn.id)
		if wanted && kind != Stale && matches(fs, func(name string) []string {
			return map[string][]string{"subnet-id": {sn.id}, "vpc-id": {vpcID}}[name]
		}) {
			found = append(found, sn)
		}
	}
	found, next, err := page(found, c.form, "MaxResults", limits{5, 1000, 0})
	if err != nil {
		return nil, err
	}
	out := describeSubnetsResponse{RequestID: c.id, NextToken: next}
	for _, sn := range found {
		out.Subnets.Item = append(out.Subnets.Item, subnetXML{sn.id, "available", vpcID, sn.publicIPs})
	}
	return out, nil
}

// describeRouteTables answers with tables and their associations. A filter on
// an association chooses the table that has such an association:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeRouteTables.html
func (s *Server) describeRouteTables(c call, kind FaultKind, _ time.Time) (any, error) {
	fs, err := filters(c.form, "vpc-id", "association.subnet-id", "association.main")
	if err != nil {
		return nil, err
	}
	tables := []routeTableXML{routeTable(mainTable, s.mainRoutes, associationXML{ID: "rtbassoc-main", Table: mainTable, Main: true})}
	for _, sn := range s.subnets {
		if len(sn.own) > 0 {
			tables = append(tables, routeTable(sn.tableID, sn.own, associationXML{ID: "rtbassoc-" + sn.id, Table: sn.tableID, Subnet: sn.id}))
		}
	}
	var found []routeTableXML
	for _, t := range tables {
		a := t.Associations.Item[0]
		if kind != Stale && matches(fs, func(name string) []string {
			return map[string][]string{"vpc-id": {vpcID}, "association.subnet-id": {a.Subnet}, "association.main": {flagText(a.Main)}}[name]
		}) {
			found = append(found, t)
		}
	}
	found, next, err := page(found, c.form, "MaxResults", limits{5, 100, 0})
	if err != nil {
		return nil, err
	}
	return describeRouteTablesResponse{RequestID: c.id, NextToken: next, Tables: items[routeTableXML]{found}}, nil
}

func flagText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

type describeSubnetsResponse struct {
	XMLName   xml.Name         `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ DescribeSubnetsResponse"`
	RequestID string           `xml:"requestId"`
	Subnets   items[subnetXML] `xml:"subnetSet"`
	NextToken string           `xml:"nextToken,omitempty"`
}

type subnetXML struct {
	ID        string `xml:"subnetId"`
	State     string `xml:"state"`
	VPC       string `xml:"vpcId"`
	PublicIPs bool   `xml:"mapPublicIpOnLaunch"`
}

type describeRouteTablesResponse struct {
	XMLName   xml.Name             `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ DescribeRouteTablesResponse"`
	RequestID string               `xml:"requestId"`
	Tables    items[routeTableXML] `xml:"routeTableSet"`
	NextToken string               `xml:"nextToken,omitempty"`
}

type routeTableXML struct {
	ID           string                `xml:"routeTableId"`
	VPC          string                `xml:"vpcId"`
	Routes       items[routeXML]       `xml:"routeSet"`
	Associations items[associationXML] `xml:"associationSet"`
}

type routeXML struct {
	CIDR    string `xml:"destinationCidrBlock,omitempty"`
	CIDR6   string `xml:"destinationIpv6CidrBlock,omitempty"`
	Prefix  string `xml:"destinationPrefixListId,omitempty"`
	Gateway string `xml:"gatewayId,omitempty"`
	NAT     string `xml:"natGatewayId,omitempty"`
	State   string `xml:"state"`
}

type associationXML struct {
	ID     string `xml:"routeTableAssociationId"`
	Table  string `xml:"routeTableId"`
	Subnet string `xml:"subnetId,omitempty"`
	Main   bool   `xml:"main"`
}

func routeTable(id string, routes []Route, a associationXML) routeTableXML {
	t := routeTableXML{ID: id, VPC: vpcID, Associations: items[associationXML]{[]associationXML{a}}}
	for _, r := range routes {
		x := routeXML{State: "active"}
		switch {
		case strings.HasPrefix(r.Destination, "pl-"):
			x.Prefix = r.Destination
		case strings.Contains(r.Destination, ":"):
			x.CIDR6 = r.Destination
		default:
			x.CIDR = r.Destination
		}
		if strings.HasPrefix(r.Gateway, "nat-") {
			x.NAT = r.Gateway
		} else {
			x.Gateway = r.Gateway
		}
		t.Routes.Item = append(t.Routes.Item, x)
	}
	return t
}
