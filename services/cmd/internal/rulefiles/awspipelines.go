package rulefiles

// Names of the built-in pipelines for rules about web servers, proxies and
// firewalls, which then match the logs of AWS's own. A rule has one log source,
// so of the first two one is for a rule set.
const (
	AWSS3Access = "aws-s3access"
	AWSELB      = "aws-elb"
	AWSVPCFlow  = "aws-vpcflow"
)

const (
	// webFields are what both kinds of web logs call alike.
	webFields = `priority: 10
transformations:
  - type: field_name_mapping
    mapping:
        cs-method: request_method
        c-uri: [request_url, request_target]
        cs-uri: [request_url, request_target]
        cs-uri-stem: request_path
        c-uri-stem: request_path
        c-uri-extension: request_extension
        c-uri-query: request_query
        cs-uri-query: request_query
        cs-user-agent: user_agent
        c-useragent: user_agent
`
	// ofWeb are the rules that are meant.
	ofWeb = `    rule_conditions: &web
      - {type: logsource, category: webserver}
      - {type: logsource, category: proxy}
    rule_cond_op: or
`
)

// awsS3Access lets rules of the categories webserver and proxy match lines of
// S3 access logs.
const awsS3Access = `name: aws-s3access
` + webFields + `        cs-referer: referer
        cs-referrer: referer
        sc-status: status
        c-ip: remote_ip
        src_ip: remote_ip
        cs-host: host_header
        sc-bytes: bytes_sent
` + ofWeb + `  - type: change_logsource
    product: aws
    service: s3
    rule_conditions: *web
    rule_cond_op: or
`

// awsELB lets them match lines of load balancers' logs.
const awsELB = `name: aws-elb
` + webFields + `        sc-status: elb_status_code
        c-ip: client_ip
        src_ip: client_ip
        src_port: client_port
        cs-host: [request_host, domain_name]
        cs-bytes: received_bytes
        sc-bytes: sent_bytes
` + ofWeb + `  - type: change_logsource
    product: aws
    service: elb
    rule_conditions: *web
    rule_cond_op: or
`

// awsVPCFlow lets rules of the category firewall match lines of VPC flow logs,
// which know two actions.
const awsVPCFlow = `name: aws-vpcflow
priority: 10
transformations:
  - type: replace_string
    regex: '^(?i:accept|allow|allowed|forward|pass|permit|permitted)$'
    replacement: ACCEPT
    field_name_conditions: [{type: include_fields, fields: [action]}]
    rule_conditions: &firewall [{type: logsource, category: firewall}]
  - type: replace_string
    regex: '^(?i:reject|rejected|block|blocked|deny|denied|drop|dropped)$'
    replacement: REJECT
    field_name_conditions: [{type: include_fields, fields: [action]}]
    rule_conditions: *firewall
  - type: field_name_mapping
    mapping:
        src_ip: [srcaddr, pkt-srcaddr]
        dst_ip: [dstaddr, pkt-dstaddr]
        src_port: srcport
        dst_port: dstport
    rule_conditions: *firewall
  - type: change_logsource
    product: aws
    service: vpcflow
    rule_conditions: *firewall
`
