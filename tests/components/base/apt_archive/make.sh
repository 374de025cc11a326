#!/bin/sh
# Makes this archive anew: a key, one package, its list, the signed Release. It needs gpg and dpkg-dev.
# The private key is thrown away: nothing else can be signed with it.
set -eu
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'gpgconf --homedir "$folder/gpg" --kill gpg-agent; rm -r "$folder"' EXIT
export SOURCE_DATE_EPOCH=1735689600 GNUPGHOME="$folder/gpg"
then='--faked-system-time 20250101T000000' # no clock is before it
mkdir -m 700 "$GNUPGHOME"
mkdir -p "$folder/package/DEBIAN" "$folder/package/usr/share/kubewire-probe"
cat >"$folder/package/DEBIAN/control" <<END
Package: kubewire-probe
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@example.com>
Description: a file, for tests of what apt checks
END
echo genuine >"$folder/package/usr/share/kubewire-probe/content"
dpkg-deb --root-owner-group -Zgzip --build "$folder/package" kubewire-probe_1.0_all.deb
dpkg-scanpackages --multiversion . >Packages
{
    echo "Origin: kubewire-tests"
    echo "Suite: probe"
    echo "Date: Wed, 01 Jan 2025 00:00:00 UTC"
    echo "Architectures: all amd64 arm64"
    echo "SHA256:"
    echo " $(sha256sum Packages | cut -d' ' -f1) $(stat -c %s Packages) Packages"
} >Release
gpg $then --batch --quiet --pinentry-mode loopback --passphrase '' \
    --quick-generate-key 'kubewire tests <nobody@example.com>' rsa3072 sign never
gpg $then --batch --yes --digest-algo SHA512 --clearsign --output InRelease Release
gpg --batch --export --armor >key.asc
rm Release
