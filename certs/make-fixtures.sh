#!/bin/sh
# Makes the certificates in fixtures/ with the openssl command line alone. TEST ONLY: the keys are public.
#
# Usage: certs/make-fixtures.sh          (openssl 1.1.1 or newer)
#
# Everything is made anew, so the tests that read the fixtures see a consistent set. Certificates last a hundred years
# (2020 to 2120), except for the two whose point is that they do not.
set -eu

cd "$(dirname "$0")"
OUT=fixtures
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
rm -rf "$OUT"
mkdir -p "$OUT/stranger"

START=20200101000000Z
END=21200101000000Z
OTHER_NAME=1.3.6.1.4.1.2312.19.1

cat > "$WORK/openssl.cnf" <<CONF
[ca]
default_ca = authority

[authority]
database = $WORK/index.txt
new_certs_dir = $WORK
rand_serial = yes
unique_subject = no
default_md = sha256
default_days = 36500
default_crl_days = 36500
crlnumber = $WORK/crlnumber
crl_extensions = crl_ext
policy = anything
email_in_dn = no

[anything]
commonName = optional

[req]
distinguished_name = subject
prompt = no

[subject]
CN = unused

[ca_ext]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash

[intermediate_ext]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid

[crl_ext]
authorityKeyIdentifier = keyid
CONF
: > "$WORK/index.txt"
echo 01 > "$WORK/crlnumber"

# quiet COMMAND...: shows what it says only if it fails.
quiet() { "$@" 2>"$WORK/log" || { cat "$WORK/log" >&2; exit 1; }; }

# new_key FILE ALGORITHM [OPTION...]: a key in PKCS#8, readable by its owner alone.
new_key() {
    file=$1
    shift
    (umask 077 && quiet openssl genpkey -algorithm "$@" -out "$file")
}
new_p256() { new_key "$1" EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:named_curve; }

# sign NAME KEY CRT CA_CRT CA_KEY EXTENSIONS START END: a certificate for KEY.
sign() {
    openssl req -new -config "$WORK/openssl.cnf" -subj "/CN=$1" -key "$2" -out "$WORK/$1.csr"
    quiet openssl ca -batch -notext -config "$WORK/openssl.cnf" -in "$WORK/$1.csr" -out "$3" -cert "$4" -keyfile "$5" \
        -extfile "$6" -startdate "$7" -enddate "$8"
}

# self_sign NAME KEY CRT: a root.
self_sign() {
    openssl req -new -config "$WORK/openssl.cnf" -subj "/CN=$1" -key "$2" -out "$WORK/root.csr"
    quiet openssl ca -batch -notext -config "$WORK/openssl.cnf" -in "$WORK/root.csr" -out "$3" -selfsign -keyfile "$2" \
        -extensions ca_ext -startdate "$START" -enddate "$END"
}

# leaf NAME SAN [EKU [START [END]]]: signs $OUT/NAME.key with the mesh's CA. An empty SAN leaves the extension out.
leaf() {
    {
        echo "basicConstraints = critical, CA:false"
        echo "keyUsage = critical, digitalSignature"
        echo "extendedKeyUsage = ${3:-serverAuth, clientAuth}"
        echo "authorityKeyIdentifier = keyid"
        if [ -n "$2" ]; then echo "subjectAltName = $2"; fi
    } > "$WORK/$1.ext"
    sign "$1" "$OUT/$1.key" "$OUT/$1.crt" "$OUT/ca.crt" "$OUT/ca.key" "$WORK/$1.ext" "${4:-$START}" "${5:-$END}"
}

# The mesh's CA.
new_p256 "$OUT/ca.key"
self_sign "receptor-quic test CA" "$OUT/ca.key" "$OUT/ca.crt"

# One node for each kind of name, key and key file: PKCS#1, PKCS#8, PKCS#8, SEC1.
new_key "$WORK/rsa.key" RSA -pkeyopt rsa_keygen_bits:2048
(umask 077 && openssl rsa -in "$WORK/rsa.key" -traditional -out "$OUT/othername.key" 2>/dev/null ||
    openssl rsa -in "$WORK/rsa.key" -out "$OUT/othername.key")
leaf othername "otherName:$OTHER_NAME;UTF8:othername"
new_p256 "$OUT/uri.key"
leaf uri "URI:receptor:uri"
new_key "$OUT/dns.key" ED25519
leaf dns "DNS:dns"
(umask 077 && openssl ecparam -name secp384r1 -genkey -out "$OUT/p384.key")
leaf p384 "otherName:$OTHER_NAME;UTF8:p384"

# Every kind of name in one certificate, some of which are not node ids, one twice, one percent-encoded.
new_p256 "$OUT/many.key"
leaf many "DNS:many-dns, DNS:*.wild.example, URI:receptor:many%40uri, URI:https://many.example/, URI:receptor:many, \
otherName:$OTHER_NAME;UTF8:many, otherName:1.3.6.1.4.1.311.20.2.3;UTF8:someone-else, email:many@example.org, IP:127.0.0.1"

# What must be refused, each for one reason.
new_p256 "$OUT/expired.key"
leaf expired "URI:receptor:expired" "" 20200101000000Z 20200201000000Z
new_p256 "$OUT/future.key"
leaf future "URI:receptor:future" "" 21190101000000Z "$END"
new_p256 "$OUT/revoked.key"
leaf revoked "URI:receptor:revoked"
new_p256 "$OUT/nameless.key"
leaf nameless ""
new_p256 "$OUT/client-only.key"
leaf client-only "URI:receptor:client-only" clientAuth
quiet openssl ca -config "$WORK/openssl.cnf" -cert "$OUT/ca.crt" -keyfile "$OUT/ca.key" -revoke "$OUT/revoked.crt"
# Version 2, with a number: what RFC 5280 asks for, and "crlnumber" in the configuration brings about.
quiet openssl ca -config "$WORK/openssl.cnf" -cert "$OUT/ca.crt" -keyfile "$OUT/ca.key" -gencrl -out "$OUT/crl.pem"

# What must be refused by its algorithm, or by the limits of a CA above it.
for digest in sha1 sha512; do
    new_p256 "$OUT/$digest.key"
    openssl req -new -config "$WORK/openssl.cnf" -subj "/CN=$digest" -key "$OUT/$digest.key" -out "$WORK/$digest.csr"
    printf 'keyUsage = critical, digitalSignature\nsubjectAltName = URI:receptor:%s\n' "$digest" > "$WORK/$digest.ext"
    quiet openssl ca -batch -notext -config "$WORK/openssl.cnf" -in "$WORK/$digest.csr" -out "$OUT/$digest.crt" \
        -cert "$OUT/ca.crt" -keyfile "$OUT/ca.key" -md "$digest" -extfile "$WORK/$digest.ext" -startdate "$START" \
        -enddate "$END"
done

# below_ca NAME SAN CA_CRT CA_KEY EXTENSIONS: a node and the CA that issues its certificate, below another CA.
below_ca() {
    new_p256 "$WORK/$1-ca.key"
    printf 'basicConstraints = critical, CA:true\nsubjectKeyIdentifier = hash\n%s\n' "$5" > "$WORK/$1-ca.ext"
    sign "$1-ca" "$WORK/$1-ca.key" "$WORK/$1-ca.crt" "$3" "$4" "$WORK/$1-ca.ext" "$START" "$END"
    new_p256 "$OUT/$1.key"
    printf 'keyUsage = critical, digitalSignature\nsubjectAltName = %s\n' "$2" > "$WORK/$1.ext"
    sign "$1" "$OUT/$1.key" "$WORK/$1.crt" "$WORK/$1-ca.crt" "$WORK/$1-ca.key" "$WORK/$1.ext" "$START" "$END"
    cat "$WORK/$1.crt" "$WORK/$1-ca.crt" > "$OUT/$1.crt"
}
# Two CAs that are constrained to DNS names below example.org: one keeps to them, one issues another kind of name.
PERMITTED="nameConstraints = critical, permitted;DNS:example.org"
below_ca permitted "DNS:permitted.example.org" "$OUT/ca.crt" "$OUT/ca.key" "$PERMITTED"
below_ca outside "DNS:outside.example.org, URI:receptor:outside" "$OUT/ca.crt" "$OUT/ca.key" "$PERMITTED"
# A root that permits no CA below it, and a CA below it.
new_p256 "$WORK/flat-ca.key"
openssl req -new -config "$WORK/openssl.cnf" -subj "/CN=flat" -key "$WORK/flat-ca.key" -out "$WORK/root.csr"
quiet openssl ca -batch -notext -config "$WORK/openssl.cnf" -in "$WORK/root.csr" -out "$OUT/flat-ca.crt" -selfsign \
    -keyfile "$WORK/flat-ca.key" -extensions intermediate_ext -startdate "$START" -enddate "$END"
below_ca deep "URI:receptor:deep" "$OUT/flat-ca.crt" "$WORK/flat-ca.key" ""

# A key that asks for a password ("test").
new_p256 "$WORK/encrypted.key"
cp "$WORK/encrypted.key" "$OUT/encrypted.key"
leaf encrypted "URI:receptor:encrypted"
(umask 077 && openssl pkcs8 -topk8 -in "$WORK/encrypted.key" -passout pass:test -out "$OUT/encrypted.key")

# A node whose certificate comes from an intermediate CA: its file holds the chain, node first.
new_p256 "$WORK/intermediate.key"
openssl req -new -config "$WORK/openssl.cnf" -subj "/CN=receptor-quic test intermediate" -key "$WORK/intermediate.key" \
    -out "$WORK/intermediate.csr"
quiet openssl ca -batch -notext -config "$WORK/openssl.cnf" -in "$WORK/intermediate.csr" -out "$WORK/intermediate.crt" \
    -cert "$OUT/ca.crt" -keyfile "$OUT/ca.key" -extensions intermediate_ext -startdate "$START" -enddate "$END"
new_p256 "$OUT/chained.key"
printf 'keyUsage = critical, digitalSignature\nsubjectAltName = URI:receptor:chained\n' > "$WORK/chained.ext"
sign chained "$OUT/chained.key" "$WORK/chained.crt" "$WORK/intermediate.crt" "$WORK/intermediate.key" \
    "$WORK/chained.ext" "$START" "$END"
cat "$WORK/chained.crt" "$WORK/intermediate.crt" > "$OUT/chained.crt"

# Another mesh, whose CA bears the same name as ours: names prove nothing.
new_p256 "$OUT/stranger/ca.key"
self_sign "receptor-quic test CA" "$OUT/stranger/ca.key" "$OUT/stranger/ca.crt"
new_p256 "$OUT/stranger/stranger.key"
printf 'extendedKeyUsage = serverAuth, clientAuth\nsubjectAltName = URI:receptor:stranger\n' > "$WORK/stranger.ext"
sign stranger "$OUT/stranger/stranger.key" "$OUT/stranger/stranger.crt" "$OUT/stranger/ca.crt" \
    "$OUT/stranger/ca.key" "$WORK/stranger.ext" "$START" "$END"

# Authorities made elsewhere: a plain one, and one whose subject has a part of several attributes.
new_key "$OUT/rsa-ca.key" RSA -pkeyopt rsa_keygen_bits:2048
cat >> "$WORK/openssl.cnf" <<CONF

[rsa_ca_subject]
C = DE
ST = Hessen
O = Example, Inc.
OU = Mesh
CN = Example Receptor CA

[odd_ca_subject]
O = Example
0.CN = Example
+UID = 1
CONF
for kind in rsa odd; do
    sed "s/distinguished_name = subject/distinguished_name = ${kind}_ca_subject/" "$WORK/openssl.cnf" > "$WORK/$kind.cnf"
    openssl req -new -x509 -config "$WORK/$kind.cnf" -key "$OUT/rsa-ca.key" -extensions ca_ext -days 36500 \
        -utf8 -out "$OUT/$kind-ca.crt"
done

# What OpenSSL calls the fingerprints of a certificate and of its public key.
{
    echo "uri certificate $(openssl x509 -in "$OUT/uri.crt" -outform DER | openssl dgst -sha256 -r | cut -d' ' -f1)"
    echo "uri key $(openssl x509 -in "$OUT/uri.crt" -pubkey -noout | openssl pkey -pubin -outform DER |
        openssl dgst -sha256 -r | cut -d' ' -f1)"
} > "$OUT/fingerprints"

echo "made $(find "$OUT" -type f | wc -l) files in certs/$OUT"
