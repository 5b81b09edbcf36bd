#!/bin/sh
# Installs what the tests need and the machine lacks: a C compiler for the race
# detector; Java, Maven and redis-server for tests against real servers; Python
# and Node, whose libraries verify our webhooks; curl, which README.md types. It
# does so on Debian and as root.
# Elsewhere it says in one line what is missing and what is skipped for that
# reason, and exits 0; where STORMBELL_REQUIRE_REAL is 1 something missing is an
# error.
set -eu

# The programs in $@ that are not on the PATH.
missing_of() {
	for program in "$@"; do
		command -v "$program" >/dev/null 2>&1 || printf '%s ' "$program"
	done
}

missing() {
	missing_of gcc java mvn redis-server curl npm
	# Debian's Python comes without what makes an environment for libraries.
	python3 -c 'import ensurepip' >/dev/null 2>&1 || printf 'python3 '
}

# Installs packages without letting any of them start a service, now or at the
# next boot: tests start servers of their own.
install() {
	policy=/usr/sbin/policy-rc.d
	ours=no
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
		ours=yes
		trap 'rm -f "$policy"' EXIT
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	apt-get install -q -y --no-install-recommends "$@"
	if [ "$ours" = yes ]; then
		rm -f "$policy"
		trap - EXIT
	fi
	case " $* " in
	*" redis-server "*)
		if [ -d /run/systemd/system ]; then
			systemctl disable --now redis-server
		else
			update-rc.d redis-server disable
		fi
		;;
	esac
}

packages=""
for program in $(missing); do
	case $program in
	gcc) packages="$packages gcc libc6-dev" ;;
	java) packages="$packages default-jre-headless" ;;
	mvn) packages="$packages maven" ;;
	redis-server | curl) packages="$packages $program" ;;
	python3) packages="$packages python3 python3-venv" ;;
	npm) packages="$packages nodejs npm" ;;
	esac
done

if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "setup: installing$packages"
	# shellcheck disable=SC2086 # a list of words
	install $packages >&2 || echo "setup: apt-get failed" >&2
fi

left=$(missing)
if [ -z "$left" ]; then
	exit 0
fi
skipped=""
[ -z "$(missing_of java mvn)" ] || skipped="$skipped, tests against real Kafka"
[ -z "$(missing_of redis-server)" ] || skipped="$skipped, tests against real Redis"
[ -z "$(missing_of python3)" ] || skipped="$skipped, verification of webhooks by Python"
[ -z "$(missing_of curl)" ] || skipped="$skipped, the test of README.md and the guides"
[ -z "$(missing_of npm)" ] || skipped="$skipped, verification of webhooks by TypeScript"
[ -z "$(missing_of gcc)" ] || skipped="$skipped, the race detector"
echo "setup: missing: ${left% }; skipped: ${skipped#, }" >&2
[ "${STORMBELL_REQUIRE_REAL:-}" != 1 ]
