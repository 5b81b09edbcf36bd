package gateway

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/stormbell/stormbell/services/internal/control"
)

// statusBody says how the gateway is.
type statusBody struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	Tenant string `json:"tenant"`
	// Sources are the names that requests can use.
	Sources []string `json:"sources"`
	// Partitions is the count of the topic events.
	Partitions int `json:"partitions"`
	// Manifests are the rule sets that events are stamped with.
	Manifests manifestsBody `json:"manifests"`
}

func (s *Service) getStatus(c *gin.Context, id control.Identity) {
	all, own := s.deps.Control.Manifests(id.Tenant)
	out := statusBody{
		Ready: true, Tenant: id.Tenant, Sources: s.sources.names(), Partitions: s.deps.Partitions,
		Manifests: manifestsBody{hexOf(all), hexOf(own)},
	}
	if err := s.Ready(); err != nil {
		out.Ready, out.Reason = false, err.Error()
	}
	answer(c, http.StatusOK, out)
}
