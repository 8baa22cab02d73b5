#!/bin/sh
# Makes the certificates that the examples in this directory name, so that the examples pass `weir check`
# and can be started. For tests only: self-signed, valid for 90 days, not trusted by any client. In
# production, a CA issues certificates.
#
#   conf/make-certificates.sh            beside the examples
#   conf/make-certificates.sh DIRECTORY  in that directory
#
# Needs openssl. Existing files are kept.
set -eu
directory=${1:-$(dirname "$0")}
command -v openssl >/dev/null || {
    echo "missing: openssl; apt-get install openssl" >&2
    exit 1
}

# A key, and a certificate for these names, with this common name.
make() {
    file=$directory/$1
    names=$2
    if [ -e "$file.crt" ] && [ -e "$file.key" ]; then
        echo "kept: $file.crt"
        return
    fi
    # Only the owner may read the key.
    (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$file.key" 2>/dev/null)
    openssl req -new -x509 -days 90 -key "$file.key" -subj "/CN=$1" \
        -addext "subjectAltName=$names" -out "$file.crt"
    echo "made: $file.crt"
}

make www.example.com DNS:www.example.com,DNS:example.com    # https.yaml
make api.example.com DNS:api.example.com
make example.com 'DNS:example.com,DNS:*.example.com'        # routing.yaml
make weir DNS:weir.internal                                 # https-backends.yaml
make backends-ca DNS:web.internal,DNS:b.internal
