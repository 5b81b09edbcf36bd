#!/bin/sh
# Compiles programs of Stormbell, $2, and the demo into the directory $1, and
# says how far it is: the first time takes minutes, and somebody is waiting.
set -eu
cd "$(dirname "$0")/../.."
bin=$1 programs=$2
mkdir -p "$bin"
began=$(date +%s)

# One package per line is compiled, and downloads tell of themselves.
compile() {
	GOWORK=off go -C services build -v -o "$bin/" "$programs" &&
		GOWORK=off go -C services/e2e build -v -o "$bin/demo" ./cmd/demo
}

# How many packages are to be compiled; where modules must be fetched first,
# that happens here.
count() {
	{
		GOWORK=off go -C services list -deps -f '{{if .Stale}}{{.ImportPath}}{{end}}' "$programs" &&
			GOWORK=off go -C services/e2e list -deps -f '{{if .Stale}}{{.ImportPath}}{{end}}' ./cmd/demo
	} | sort -u | wc -l | tr -d ' '
}

# On a terminal one line is written over and over, elsewhere one now and then.
if [ -t 1 ]; then
	show() { printf '\r\033[K  %.76s' "$1"; }
	clear='\r\033[K'
else
	show() { case $n in *00 | 1) printf '  %s\n' "$1" ;; esac; }
	clear=''
fi

# Reads what go says: progress is shown, everything else is an error to print.
# The last line says how it ended.
watch() {
	n=0
	while IFS= read -r line; do
		case $line in
		"exit "*)
			# shellcheck disable=SC2059 # a control sequence
			printf "$clear"
			return "${line#exit }"
			;;
		"total "*)
			total=${line#total }
			n=0
			[ "$total" = 0 ] && show "linking"
			;;
		"go: downloading "*)
			n=$((n + 1))
			show "fetching ${line#go: downloading } ($n)"
			;;
		*[!A-Za-z0-9_./-]* | "")
			printf "$clear%s\n" "$line"
			;;
		*)
			n=$((n + 1))
			show "compiling $n of $total, then linking: $line"
			;;
		esac
	done
}

total='?'
printf '\nBuild\n\n'
[ ! -t 1 ] || printf '  looking for what is to be compiled'
{
	# The count goes to the same reader, errors and downloads along with it.
	if packages=$(count); then
		echo "total $packages"
		compile && echo "exit 0" || echo "exit $?"
	else
		echo "exit 1"
	fi
} 2>&1 | watch
printf '  built in %s s: %s\n' "$(($(date +%s) - began))" "$bin"
