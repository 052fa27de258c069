package simgithub

import (
	"errors"
	"net/http"
)

func annotateTag(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct{ Repository, Tag, By, Message string }](r)
	switch {
	case err != nil:
		return nil, err
	case in.Repository == "" || in.Tag == "" || in.By == "":
		return nil, errors.New("repository, tag and by are wanted")
	}
	sha, err := s.AnnotateTag(in.Repository, in.Tag, in.By, in.Message)
	return map[string]string{"sha": sha}, err
}

func pushBranch(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct{ Repository, Branch, SHA, By string }](r)
	switch {
	case err != nil:
		return nil, err
	case in.Repository == "" || in.Branch == "" || in.By == "" || !isSHA(in.SHA):
		return nil, errors.New("repository, branch, by and a sha of 40 hexadecimal digits are wanted")
	}
	s.PushBranch(in.Repository, in.Branch, in.SHA, in.By)
	return done{}, nil
}

func setProperties(s *Server, r *http.Request) (any, error) {
	in, err := strictly[struct {
		Repository string
		Properties map[string]string
		Claims     []string
	}](r)
	switch {
	case err != nil:
		return nil, err
	case in.Repository == "":
		return nil, errors.New("repository is wanted")
	}
	s.SetProperties(in.Repository, in.Properties)
	if in.Claims != nil {
		s.ClaimProperties(in.Claims...)
	}
	return done{}, nil
}
