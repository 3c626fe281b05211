#!/bin/sh
# Make the certificate of a host or of a client, NAME.pem, and its key, NAME.key:
#
#     sh certificate.sh NAME [OTHER]...
#
# OTHER is a name or an address that it is to be good for, too, such as DNS:localhost or IP:10.0.0.7. The first run in a
# directory also makes the CA that signs all of them, ca.pem and ca.key. To renew a certificate is to make it again.
# Takes OpenSSL 3.
set -eu
umask 077
new_key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"

if [ ! -e ca.key ]; then
    openssl req -x509 $new_key -keyout ca.key -out ca.pem -days 3650 \
        -subj "/CN=registry CA" -addext "keyUsage=critical,keyCertSign,cRLSign"
fi

name=$1
shift
names="DNS:$name"
for other in "$@"; do
    names="$names,$other"
done
openssl req -new $new_key -keyout "$name.key.new" -out "$name.csr" -subj "/CN=$name" -addext "subjectAltName=$names"
openssl x509 -req -in "$name.csr" -copy_extensions copy -CA ca.pem -CAkey ca.key -days 90 -out "$name.pem.new"
rm "$name.csr"
# Whoever reads them meanwhile sees the old ones or the new ones, and never half a file.
mv "$name.key.new" "$name.key"
mv "$name.pem.new" "$name.pem"
