package story

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// A habit is a chain of calls that somebody makes a number of times a day, at
// times between two hours after the day's begin.
type habit struct {
	who         *actor
	from, until float64
	times       int
	chain       []step
}

// A step is one call of a chain. In params and result, {n} stands for a number
// and {x} for a hexadecimal one, new at each call but the same within it.
type step struct {
	service, name  string
	how            access
	params, result string // JSON
	on             string // resource: type and ARN
	denied         bool
}

type access uint8

const (
	reads       access = iota // of the account's settings
	writes                    // to the account's settings
	readsData                 // of a bucket, a function or the like
	writesData                // to it
	entersMFA                 // signs in at the console with a second factor
	entersWrong               // types a wrong password there
)

// routine is the day without the stranger.
func routine(begin time.Time, ids *rand.Rand) []Event {
	r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a story, not a secret
	var day []Event
	for _, h := range habits() {
		length := (h.until - h.from) / float64(h.times)
		for i := range h.times {
			// Once in each piece of the time, so that nothing comes in bursts.
			at := begin.Add(hours(h.from + (float64(i)+r.Float64()*0.8)*length))
			since := at.Add(-time.Duration(r.IntN(40)) * time.Minute).Truncate(15 * time.Minute)
			for _, s := range h.chain {
				day = append(day, s.told(h.who, r, ids, since).encode(ids, at))
				at = at.Add(time.Duration(1+r.IntN(4)) * time.Second)
			}
		}
	}
	return inOrder(day)
}

func hours(h float64) time.Duration {
	return time.Duration(h * float64(time.Hour)).Truncate(time.Second)
}

func (s *step) told(who *actor, r, ids *rand.Rand, since time.Time) *record {
	switch s.how {
	case entersMFA:
		return signIn(who, true, "Success")
	case entersWrong:
		return signIn(who, true, "Failure")
	default:
	}
	rec := who.call(ids, s.service, s.name, since)
	rec.ReadOnly = s.how == reads || s.how == readsData
	rec.ManagementEvent = s.how == reads || s.how == writes
	fill := strings.NewReplacer("{n}", fmt.Sprint(10_000+r.IntN(90_000)), "{x}", fmt.Sprintf("%017x", r.Uint64()>>1))
	rec.RequestParameters, rec.ResponseElements = object(fill.Replace(s.params)), object(fill.Replace(s.result))
	if kind, arn, ok := strings.Cut(s.on, " "); ok {
		rec.Resources = []resource{{account, kind, fill.Replace(arn)}}
	}
	if s.denied {
		rec.ErrorCode, rec.ResponseElements = "AccessDenied", nil
		rec.ErrorMessage = fmt.Sprintf("User: %s is not authorized to perform: %s:%s because no identity-based policy allows the action", rec.UserIdentity.ARN, s.service, s.name)
	}
	return rec
}

// object reads what habits say; nothing is null, as in CloudTrail.
func object(text string) map[string]any {
	if text == "" {
		return nil
	}
	var o map[string]any
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(fmt.Errorf("story: %s: %w", text, err)) // the story is part of the program
	}
	return o
}

// The cast.
func person(name string, office int) *actor {
	return &actor{
		name: name, kind: "user", mfa: true, address: fmt.Sprintf("198.51.100.%d", office),
		agent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
	}
}

func (a *actor) with(agent string) *actor {
	other := *a
	other.agent = agent
	return &other
}

func role(name, session, address, agent string) *actor {
	return &actor{name: name, kind: "role", session: session, address: address, agent: agent}
}

func service(name string) *actor {
	host := name + ".amazonaws.com"
	return &actor{name: name, kind: "service", address: host, agent: host}
}

const (
	cli     = "aws-cli/2.17.9 md/awscrt#0.20.11 ua/2.0 os/macos#23.5.0 md/arch#arm64 lang/python#3.11.9 md/pyimpl#CPython cfg/retry-mode#standard"
	runner  = "aws-cli/2.17.9 md/awscrt#0.20.11 ua/2.0 os/linux#6.5.0 md/arch#x86_64 lang/python#3.11.9 exec-env/CodeRunner"
	goSDK   = "aws-sdk-go-v2/1.30.3 ua/2.1 os/linux lang/go#1.22.5 md/GOOS#linux md/GOARCH#arm64 api/s3#1.58.2"
	nodeSDK = "aws-sdk-js/3.614.0 ua/2.0 os/linux#5.10.220 lang/js md/nodejs#20.15.0 api/s3#3.614.0 exec-env/AWS_Lambda_nodejs20.x"
	pySDK   = "Boto3/1.34.144 md/Botocore#1.34.144 ua/2.0 os/linux#5.10.220 md/arch#aarch64 lang/python#3.12.4"
)

// habits are what everybody does on such a day.
func habits() []habit {
	return append(append(people(), deployments()...), applications()...)
}

func people() []habit {
	ayse, mira, jonas, tom := person("ayse", 21), person("mira", 22), person("jonas", 23), person("tom", 24)
	in := []step{{how: entersMFA}}
	return []habit{
		{ayse, 0.1, 0.4, 1, in},
		{ayse, 4.6, 4.9, 1, in},
		{mira, 0.2, 0.7, 1, in},
		{mira, 4.5, 5.0, 1, in},
		{tom, 0.3, 0.6, 1, in},
		{jonas, 0.5, 0.9, 1, []step{{how: entersWrong}, {how: entersMFA}}},
		{ayse, 0.5, 8.5, 14, []step{ // looks after the servers
			{service: "ec2", name: "DescribeInstances", params: `{"maxResults":1000,"instancesSet":{},"filterSet":{}}`},
			{service: "ec2", name: "DescribeInstanceStatus", params: `{"instancesSet":{},"filterSet":{},"includeAllInstances":true}`},
			{service: "ec2", name: "DescribeVolumes", params: `{"volumeSet":{},"filterSet":{}}`},
			{service: "ec2", name: "DescribeSecurityGroups", params: `{"securityGroupSet":{},"securityGroupIdSet":{},"filterSet":{}}`},
			{service: "monitoring", name: "DescribeAlarms", params: `{"maxRecords":100}`},
		}},
		{ayse, 6, 7, 1, []step{{
			service: "ec2", name: "CreateSnapshot", how: writes, params: `{"volumeId":"vol-{x}","description":"before the upgrade"}`,
			result: `{"snapshotId":"snap-{x}","status":"pending","encrypted":true}`,
		}}},
		{mira.with(cli), 0.8, 8.6, 12, []step{ // develops
			{service: "sts", name: "GetCallerIdentity"},
			{service: "lambda", name: "ListFunctions20150331"},
			{service: "lambda", name: "GetFunctionConfiguration20150331v2", params: `{"functionName":"image-resizer"}`},
			{service: "logs", name: "FilterLogEvents", params: `{"logGroupName":"/aws/lambda/image-resizer","filterPattern":"ERROR"}`},
		}},
		{mira.with(cli), 2, 7, 2, []step{{service: "rds", name: "DescribeDBInstances", denied: true}}},
		{jonas.with(pySDK), 1, 8.4, 15, []step{ // asks the data
			{service: "athena", name: "StartQueryExecution", how: writes, params: `{"workGroup":"reports","queryString":"***OMITTED***"}`, result: `{"queryExecutionId":"q-{x}"}`},
			{service: "athena", name: "GetQueryExecution", params: `{"queryExecutionId":"q-{x}"}`},
			{service: "athena", name: "GetQueryExecution", params: `{"queryExecutionId":"q-{x}"}`},
			{service: "athena", name: "GetQueryResults", params: `{"queryExecutionId":"q-{x}"}`},
		}},
		{tom, 0.7, 8.3, 10, []step{ // looks up what customers sent
			{service: "s3", name: "ListBuckets", params: `{"Host":"s3.eu-central-1.amazonaws.com"}`},
			{service: "s3", name: "GetBucketLocation", params: `{"bucketName":"support-attachments","Host":"s3.eu-central-1.amazonaws.com","location":""}`},
			{service: "s3", name: "GetObject", how: readsData, params: `{"bucketName":"support-attachments","key":"tickets/{n}/photo.jpg"}`, on: "AWS::S3::Object arn:aws:s3:::support-attachments/tickets/{n}/photo.jpg"},
		}},
		{tom, 3, 8, 3, []step{{service: "s3", name: "GetBucketPolicy", params: `{"bucketName":"reports","policy":""}`, denied: true}}},
	}
}

func deployments() []habit {
	token := &actor{name: "ci", kind: "web", session: "repo:roastery/shop:ref:refs/heads/main", address: "192.0.2.140", agent: runner}
	ci := role("ci-deploy", "shop-main", "192.0.2.140", runner)
	tester := role("ci-test", "shop-main", "192.0.2.141", runner)
	return []habit{
		{token, 0.6, 8.2, 9, []step{{
			service: "sts", name: "AssumeRoleWithWebIdentity", params: `{"roleArn":"arn:aws:iam::111122223333:role/ci-deploy","roleSessionName":"shop-main","durationSeconds":3600}`,
			result: `{"subjectFromWebIdentityToken":"repo:roastery/shop:ref:refs/heads/main","provider":"arn:aws:iam::111122223333:oidc-provider/token.ci.example"}`,
			on:     "AWS::IAM::Role arn:aws:iam::111122223333:role/ci-deploy",
		}}},
		{ci, 0.7, 8.3, 9, []step{
			{service: "sts", name: "GetCallerIdentity"},
			{service: "ecr", name: "GetAuthorizationToken"},
			{service: "ecr", name: "PutImage", how: writes, params: `{"repositoryName":"shop-api","imageTag":"build-{n}"}`, on: "AWS::ECR::Repository arn:aws:ecr:eu-central-1:111122223333:repository/shop-api"},
			{service: "s3", name: "PutObject", how: writesData, params: `{"bucketName":"roastery-artifacts","key":"image-resizer/build-{n}.zip"}`, on: "AWS::S3::Object arn:aws:s3:::roastery-artifacts/image-resizer/build-{n}.zip"},
			{service: "lambda", name: "UpdateFunctionCode20150331v2", how: writes, params: `{"functionName":"image-resizer","s3Bucket":"roastery-artifacts","s3Key":"image-resizer/build-{n}.zip","publish":true}`, result: `{"functionName":"image-resizer","runtime":"nodejs20.x","lastUpdateStatus":"InProgress"}`},
			{service: "ecs", name: "RegisterTaskDefinition", how: writes, params: `{"family":"shop-api","networkMode":"awsvpc"}`},
			{service: "ecs", name: "UpdateService", how: writes, params: `{"cluster":"shop","service":"shop-api","taskDefinition":"shop-api:{n}"}`},
			{service: "ecs", name: "DescribeServices", params: `{"cluster":"shop","services":["shop-api"]}`},
			{service: "ecs", name: "DescribeServices", params: `{"cluster":"shop","services":["shop-api"]}`},
		}},
		{tester, 1, 8, 5, []step{
			{service: "ec2", name: "RunInstances", how: writes, params: `{"instancesSet":{"items":[{"imageId":"ami-0f{n}ab1c2d","minCount":1,"maxCount":1}]},"instanceType":"t3.medium","subnetId":"subnet-0a1b2c3d"}`, result: `{"instancesSet":{"items":[{"instanceId":"i-{x}","instanceType":"t3.medium","instanceState":{"code":0,"name":"pending"}}]}}`},
			{service: "ec2", name: "CreateTags", how: writes, params: `{"resourcesSet":{"items":[{"resourceId":"i-{x}"}]},"tagSet":{"items":[{"key":"purpose","value":"integration-test"}]}}`},
			{service: "ec2", name: "DescribeInstances", params: `{"instancesSet":{"items":[{"instanceId":"i-{x}"}]},"filterSet":{}}`},
			{service: "ec2", name: "DescribeInstances", params: `{"instancesSet":{"items":[{"instanceId":"i-{x}"}]},"filterSet":{}}`},
			{service: "ec2", name: "DescribeInstanceStatus", params: `{"instancesSet":{"items":[{"instanceId":"i-{x}"}]},"filterSet":{}}`},
			{service: "ec2", name: "TerminateInstances", how: writes, params: `{"instancesSet":{"items":[{"instanceId":"i-{x}"}]}}`},
		}},
	}
}

func applications() []habit {
	shop := role("shop-api", "e1f0c9d2", "10.0.12.31", goSDK)
	billing := role("billing-worker", "b7a4410e", "10.0.14.8", pySDK)
	resizer := role("image-resizer", "image-resizer", "10.0.20.5", nodeSDK)
	monitor := role("monitoring", "collector", "10.0.30.9", goSDK)
	reports := role("reports", "half-hourly", "10.0.14.17", pySDK)
	assume := func(role string) []step {
		return []step{{
			service: "sts", name: "AssumeRole", params: `{"roleArn":"arn:aws:iam::111122223333:role/` + role + `","roleSessionName":"` + role + `-{n}"}`,
			result: `{"assumedRoleUser":{"assumedRoleId":"AROAEXAMPLE:` + role + `-{n}"}}`, on: "AWS::IAM::Role arn:aws:iam::111122223333:role/" + role,
		}}
	}
	decrypt := step{service: "kms", name: "Decrypt", params: `{"encryptionAlgorithm":"SYMMETRIC_DEFAULT"}`, on: "AWS::KMS::Key arn:aws:kms:eu-central-1:111122223333:key/5c0e3a52-7d31-4a4e-9a41-0c1b7f2e9d10"}
	object := func(how access, name, bucket, key string) step {
		return step{service: "s3", name: name, how: how, params: `{"bucketName":"` + bucket + `","key":"` + key + `"}`, on: "AWS::S3::Object arn:aws:s3:::" + bucket + "/" + key}
	}
	return []habit{
		{service("ecs-tasks"), 0, 8.9, 24, assume("shop-api")},
		{service("lambda"), 0, 8.9, 100, assume("image-resizer")},
		{shop, 0.1, 8.5, 6, []step{{service: "secretsmanager", name: "GetSecretValue", params: `{"secretId":"prod/shop/database"}`}, decrypt}},
		{shop, 0, 8.95, 400, []step{
			object(readsData, "GetObject", "shop-catalogue", "products/{n}.json"),
			object(writesData, "PutObject", "shop-uploads", "orders/{n}.json"),
		}},
		{resizer, 0, 8.95, 130, []step{
			{service: "lambda", name: "Invoke", how: writesData, params: `{"functionName":"arn:aws:lambda:eu-central-1:111122223333:function:image-resizer","invocationType":"Event"}`, on: "AWS::Lambda::Function arn:aws:lambda:eu-central-1:111122223333:function:image-resizer"},
			object(readsData, "GetObject", "shop-uploads", "photos/{n}.jpg"),
			object(writesData, "PutObject", "shop-catalogue", "photos/{n}-small.webp"),
		}},
		{billing, 0, 8.9, 9, []step{
			{service: "secretsmanager", name: "GetSecretValue", params: `{"secretId":"prod/billing/payment-provider"}`},
			decrypt,
			object(readsData, "GetObject", "shop-uploads", "orders/{n}.json"),
			object(writesData, "PutObject", "billing-invoices", "2026/{n}.pdf"),
			{service: "sns", name: "Publish", how: writesData, params: `{"topicArn":"arn:aws:sns:eu-central-1:111122223333:invoices"}`, on: "AWS::SNS::Topic arn:aws:sns:eu-central-1:111122223333:invoices"},
		}},
		{reports, 0, 8.9, 18, []step{
			{service: "ssm", name: "GetParameter", params: `{"name":"/reports/schedule","withDecryption":false}`},
			{service: "glue", name: "GetTable", params: `{"databaseName":"shop","name":"orders"}`},
			{service: "athena", name: "GetQueryExecution", params: `{"queryExecutionId":"q-{x}"}`},
			object(writesData, "PutObject", "reports", "half-hourly/{n}.parquet"),
		}},
		{monitor, 0, 8.95, 108, []step{
			{service: "monitoring", name: "DescribeAlarms", params: `{"stateValue":"ALARM"}`},
			{service: "ec2", name: "DescribeInstanceStatus", params: `{"instancesSet":{},"filterSet":{},"includeAllInstances":false}`},
		}},
	}
}
