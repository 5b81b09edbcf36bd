package loadgen

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// CloudTrail returns events that look like CloudTrail's, 1.2 to 1.4 kB each,
// of 200 users with addresses of their own. The nth event of a seed is always
// the same but for its time.
func CloudTrail(seed uint64) func(dst []byte, n int, at time.Time) []byte {
	calls := [][2]string{
		{"sts.amazonaws.com", "AssumeRole"},
		{"ec2.amazonaws.com", "DescribeInstances"},
		{"s3.amazonaws.com", "GetObject"},
		{"s3.amazonaws.com", "ListBuckets"},
		{"iam.amazonaws.com", "ListUsers"},
		{"kms.amazonaws.com", "Decrypt"},
		{"logs.amazonaws.com", "DescribeLogGroups"},
		{"dynamodb.amazonaws.com", "DescribeTable"},
	}
	regions := []string{"us-east-1", "eu-west-1", "eu-central-1", "ap-southeast-2"}
	const users = 200
	return func(dst []byte, n int, at time.Time) []byte {
		r := rand.New(rand.NewPCG(seed, uint64(n))) //nolint:gosec // a test's events; n is not negative
		user, call, region := r.IntN(users), calls[r.IntN(len(calls))], regions[r.IntN(len(regions))]
		id := func() string {
			return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", r.Uint32(), r.Uint32()&0xffff, r.Uint32()&0xfff, r.Uint32()&0xfff, r.Uint64()&0xffff_ffff_ffff)
		}
		key := fmt.Sprintf("%016X", r.Uint64())
		return fmt.Appendf(dst, `{"eventVersion":"1.09","userIdentity":{"type":"AssumedRole","principalId":"AROA%[1]s:user-%[2]d",`+
			`"arn":"arn:aws:sts::111122223333:assumed-role/engineer/user-%[2]d","accountId":"111122223333","accessKeyId":"ASIA%[1]s",`+
			`"sessionContext":{"sessionIssuer":{"type":"Role","principalId":"AROA%[1]s","arn":"arn:aws:iam::111122223333:role/engineer",`+
			`"accountId":"111122223333","userName":"engineer"},"attributes":{"creationDate":"%[3]s","mfaAuthenticated":"false"}}},`+
			`"eventTime":"%[3]s","eventSource":"%[4]s","eventName":"%[5]s","awsRegion":"%[6]s","sourceIPAddress":"198.51.100.%[7]d",`+
			`"userAgent":"aws-cli/2.15.30 Python/3.11.8 Linux/5.10.213-201.855.amzn2.x86_64 source/x86_64.amzn.2 prompt/off command/s3api.get-object",`+
			`"requestParameters":{"bucketName":"example-data-%[2]d","key":"reports/2024/%[8]d.parquet","x-id":"%[5]s"},`+
			`"responseElements":null,"additionalEventData":{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256",`+
			`"bytesTransferredIn":0,"AuthenticationMethod":"AuthHeader","bytesTransferredOut":%[8]d},"requestID":"%[9]s","eventID":"%[10]s",`+
			`"readOnly":true,"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"111122223333","eventCategory":"Management",`+
			`"tlsDetails":{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"%[4]s"}}`,
			key, user, at.UTC().Format(time.RFC3339), call[0], call[1], region, user%250, r.IntN(1_000_000), id(), id())
	}
}
