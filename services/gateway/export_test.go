package gateway

import "github.com/gin-gonic/gin"

// Routes lists what the API serves, as the router has it.
func Routes(s *Service) gin.RoutesInfo { return s.routes().Routes() }
