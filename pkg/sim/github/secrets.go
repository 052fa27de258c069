package simgithub

// Credentials are all tokens that the simulator ever handed out, for tests that
// look for them where they must not be.
func (s *Server) Credentials() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for token := range s.creds {
		out = append(out, token)
	}
	return out
}
