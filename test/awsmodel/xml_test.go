package awsmodel

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
)

// node is an element.
type node struct {
	name, space string
	text        string
	children    []*node
}

func (n *node) child(name string) *node {
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	return &node{}
}

// parse reads a document into nodes.
func parse(b []byte) (*node, error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	top := &node{}
	stack := []*node{top}
	for {
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && len(top.children) == 1:
			return top.children[0], nil
		case err != nil:
			return nil, err
		}
		last := stack[len(stack)-1]
		switch t := token.(type) {
		case xml.StartElement:
			n := &node{name: t.Name.Local, space: t.Name.Space}
			last.children = append(last.children, n)
			stack = append(stack, n)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			last.text += string(t)
		}
	}
}

// xml checks the frame of the ec2 and the query protocol, which differ:
// https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html
// https://smithy.io/2.0/aws/protocols/aws-query-protocol.html
func (c *checker) xml(a answer, op operation) {
	root, err := parse(a.body)
	if err != nil {
		c.complain("%s: not XML: %v", a.operation, err)
		return
	}
	if a.status >= 300 {
		c.xmlError(a, op, root)
		return
	}
	namespace := strings.TrimSuffix(c.model.Metadata.XMLNamespace, "/")
	if root.name != a.operation+"Response" || strings.TrimSuffix(root.space, "/") != namespace {
		c.complain("%s: answered by %s of %q, want %sResponse of %q", a.operation, root.name, root.space, a.operation, namespace)
	}
	id := a.header.Get("X-Amzn-Requestid")
	if c.model.Metadata.Protocol == "ec2" {
		if root.child("requestId").text != id {
			c.complain("%s: requestId is not that of the header", a.operation)
		}
		body := &node{name: root.name}
		for _, n := range root.children {
			if n.name != "requestId" {
				body.children = append(body.children, n)
			}
		}
		c.element(a.operation, *op.Output, body)
		return
	}
	if root.child("ResponseMetadata").child("RequestId").text != id {
		c.complain("%s: RequestId is not that of the header", a.operation)
	}
	for _, n := range root.children {
		switch {
		case n.name == "ResponseMetadata":
		case op.Output != nil && n.name == op.Output.ResultWrapper:
			c.element(a.operation, *op.Output, n)
		default:
			c.complain("%s: unexpected %s in the frame", a.operation, n.name)
		}
	}
	if op.Output != nil && root.child(op.Output.ResultWrapper).name == "" {
		c.complain("%s: no %s", a.operation, op.Output.ResultWrapper)
	}
}

func (c *checker) xmlError(a answer, op operation, root *node) {
	failure, id := root.child("Error"), root.child("RequestId")
	want := "ErrorResponse"
	if c.model.Metadata.Protocol == "ec2" {
		want, failure, id = "Response", root.child("Errors").child("Error"), root.child("RequestID")
	}
	if root.name != want || failure.child("Message").name == "" || failure.child("Code").text == "" || id.text != a.header.Get("X-Amzn-Requestid") {
		c.complain("%s: %s is not the form of an error", a.operation, root.name)
	}
	if c.model.Metadata.Protocol == "ec2" {
		// The model of EC2 lists no errors to compare with.
		return
	}
	if kind := failure.child("Type").text; (kind == "Sender") != (a.status < 500) {
		c.complain("%s: error of type %q with status %d", a.operation, kind, a.status)
	}
	c.code(a, op, failure.child("Code").text)
}

// element walks an element.
func (c *checker) element(path string, r ref, n *node) {
	s := c.model.Shapes[r.Shape]
	switch s.Type {
	case "structure":
		seen := map[string]bool{}
		for _, child := range n.children {
			member, ok := c.member(s, child.name)
			switch {
			case seen[child.name]:
				c.complain("%s.%s: twice", path, child.name)
			case ok:
				c.element(path+"."+child.name, s.Members[member], child)
			case !newer(path + "." + child.name):
				c.complain("%s.%s: unknown", path, child.name)
			}
			seen[child.name] = true
		}
		for _, name := range s.Required {
			if !seen[wireName(name, s.Members[name])] {
				c.complain("%s.%s: required but missing", path, name)
			}
		}
	case "list":
		for _, child := range n.children {
			if want := wireName("member", *s.Member); child.name != want {
				c.complain("%s: %s in a list of %s", path, child.name, want)
				continue
			}
			c.element(path+"[]", *s.Member, child)
		}
	default:
		if len(n.children) > 0 {
			c.complain("%s: elements in a %s", path, s.Type)
		}
		c.scalar(path, r, s, n.text)
		return
	}
	if strings.TrimSpace(n.text) != "" {
		c.complain("%s: text %q in a %s", path, n.text, s.Type)
	}
}
