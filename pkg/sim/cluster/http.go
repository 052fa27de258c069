package simcluster

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Version is what the cluster says it is.
const Version = "v1.37.2"

// maxBody is the API server's limit on a request's body.
const maxBody = 3 << 20

// Handler is the cluster's REST API, in JSON, for callers that bear
// Options.Token. https://kubernetes.io/docs/reference/using-api/api-concepts/
func (c *Cluster) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		WriteJSON(w, http.StatusOK, version.Info{Major: "1", Minor: "37", GitVersion: Version, Platform: "linux/amd64"})
	})
	for _, p := range []string{"/healthz", "/livez", "/readyz"} {
		mux.HandleFunc("GET "+p, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	}
	discover(mux)
	for _, k := range kinds() {
		base := "/api/v1"
		if k.group != "" {
			base = "/apis/" + k.group + "/v1"
		}
		if k.namespaced {
			base += "/namespaces/{namespace}"
		}
		mux.HandleFunc(base+"/"+k.resource, func(w http.ResponseWriter, r *http.Request) { c.collection(w, r, k) })
		mux.HandleFunc(base+"/"+k.resource+"/{name}", func(w http.ResponseWriter, r *http.Request) { c.item(w, r, k) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		WriteError(w, apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, true))
	})
	return c.authenticated(mux)
}

func (c *Cluster) authenticated(next http.Handler) http.Handler {
	want := []byte("Bearer " + c.opts.Token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.opts.Token == "" || subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			WriteError(w, apierrors.NewUnauthorized("Unauthorized"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// discover serves the legacy discovery documents.
func discover(mux *http.ServeMux) {
	groups := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	resources := map[string]*metav1.APIResourceList{}
	for _, k := range kinds() {
		gv := schema.GroupVersion{Group: k.group, Version: "v1"}.String()
		if resources[gv] == nil {
			resources[gv] = &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv}
			if k.group != "" {
				v := metav1.GroupVersionForDiscovery{GroupVersion: gv, Version: "v1"}
				groups.Groups = append(groups.Groups, metav1.APIGroup{Name: k.group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
			}
		}
		resources[gv].APIResources = append(resources[gv].APIResources, metav1.APIResource{
			Name: k.resource, SingularName: strings.ToLower(k.kind), Namespaced: k.namespaced, Kind: k.kind, Verbs: k.verbs,
		})
	}
	serve := func(path string, doc any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, http.StatusOK, doc) })
	}
	serve("/api", metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions", APIVersion: "v1"}, Versions: []string{"v1"}})
	serve("/apis", groups)
	for gv, list := range resources {
		if gv == "v1" {
			serve("/api/v1", list)
			continue
		}
		serve("/apis/"+gv, list)
	}
}

func (c *Cluster) collection(w http.ResponseWriter, r *http.Request, k kind) {
	req := request{group: k.group, resource: k.resource, namespace: r.PathValue("namespace")}
	var err error
	switch r.Method {
	case http.MethodGet:
		req.verb = "list"
		if err = listQuery(r, &req); err == nil && req.verb == "watch" {
			c.stream(w, r, k, req)
			return
		}
	case http.MethodPost:
		req.verb = "create"
		req.object, err = decode(r, k)
	default:
		req.verb = "deletecollection"
	}
	c.answer(w, k, req, err)
}

// listQuery reads the parameters of a list or watch
// (endpoints/handlers/get.go, listOpts).
func listQuery(r *http.Request, req *request) error {
	if err := metainternalversionscheme.ParameterCodec.DecodeParameters(r.URL.Query(), metav1.SchemeGroupVersion, &req.options); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if req.options.Watch {
		req.verb = "watch"
	}
	return nil
}

// stream answers a watch with one JSON document for each event, until the watch
// is over or its reader gone (endpoints/handlers/watch.go, HandleHTTP).
func (c *Cluster) stream(w http.ResponseWriter, r *http.Request, k kind, req request) {
	open, err := c.serveWatch(req)
	if _, ok := errors.AsType[*apierrors.StatusError](err); err != nil && !ok {
		// net/http closes the connection without an answer.
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		WriteError(w, err)
		return
	}
	defer open.Stop()
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	w.WriteHeader(http.StatusOK)
	if out.Flush() != nil {
		return
	}
	encoder := json.NewEncoder(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-open.ResultChan():
			if !ok {
				return
			}
			gvk := k.gvk()
			if e.Type == watch.Error {
				gvk = schema.GroupVersionKind{Version: "v1", Kind: "Status"}
			}
			e.Object.GetObjectKind().SetGroupVersionKind(gvk)
			if encoder.Encode(metav1.WatchEvent{Type: string(e.Type), Object: runtime.RawExtension{Object: e.Object}}) != nil || out.Flush() != nil {
				return
			}
		}
	}
}

func (c *Cluster) item(w http.ResponseWriter, r *http.Request, k kind) {
	req := request{group: k.group, resource: k.resource, namespace: r.PathValue("namespace"), name: r.PathValue("name")}
	var err error
	switch r.Method {
	case http.MethodGet:
		req.verb = "get"
	case http.MethodPut:
		req.verb = "update"
		req.object, err = decode(r, k)
	case http.MethodDelete:
		req.verb = "delete"
		err = decodeInto(r, &req.delete)
	default:
		req.verb = "patch"
	}
	c.answer(w, k, req, err)
}

func decode(r *http.Request, k kind) (runtime.Object, error) {
	obj := k.object()
	if err := decodeInto(r, obj); err != nil {
		return nil, err
	}
	if got := obj.GetObjectKind().GroupVersionKind(); !got.Empty() && got != k.gvk() {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", got, k.gvk()))
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj, nil
}

func decodeInto(r *http.Request, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return apierrors.NewRequestEntityTooLargeError(err.Error())
	}
	if len(body) == 0 && r.Method == http.MethodDelete {
		return nil
	}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != runtime.ContentTypeJSON {
		return apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, r.Method, schema.GroupResource{}, "", "", 0, true)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

func (c *Cluster) answer(w http.ResponseWriter, k kind, req request, err error) {
	if err != nil {
		WriteError(w, err)
		return
	}
	obj, err := c.serve(req)
	if _, ok := errors.AsType[*apierrors.StatusError](err); err != nil && !ok {
		// net/http closes the connection without an answer.
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		WriteError(w, err)
		return
	}
	switch obj.(type) {
	case *metav1.Status:
	default:
		gvk := k.gvk()
		if meta.IsListType(obj) {
			gvk.Kind += "List"
		}
		obj.GetObjectKind().SetGroupVersionKind(gvk)
	}
	WriteJSON(w, statusOf(req.verb, nil), obj)
}

// WriteError answers as an API server does: a status error as it is, any other
// as an internal one.
func WriteError(w http.ResponseWriter, err error) {
	status := apierrors.NewInternalError(err).Status()
	if s, ok := errors.AsType[*apierrors.StatusError](err); ok {
		status = s.Status()
	}
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	WriteJSON(w, int(status.Code), status)
}

// WriteJSON answers with this document.
func WriteJSON(w http.ResponseWriter, code int, doc any) {
	body, err := json.Marshal(doc)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

// Kubeconfig is a kubeconfig file for the cluster at this URL, whose
// certificate these PEM certificates vouch for.
func (c *Cluster) Kubeconfig(url string, caPEM []byte) ([]byte, error) {
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["sim"] = &clientcmdapi.Cluster{Server: url, CertificateAuthorityData: caPEM}
	cfg.AuthInfos["sim"] = &clientcmdapi.AuthInfo{Token: c.opts.Token}
	cfg.Contexts["sim"] = &clientcmdapi.Context{Cluster: "sim", AuthInfo: "sim", Namespace: c.opts.Namespace}
	cfg.CurrentContext = "sim"
	b, err := clientcmd.Write(*cfg)
	if err != nil {
		return nil, fmt.Errorf("write the kubeconfig: %w", err)
	}
	return b, nil
}
