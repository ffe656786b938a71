#!/bin/sh
# Makes src/bindings.c and include/bindings.h anew, after a change of functions/wit or world.wit. It needs
# wit-bindgen 0.61: cargo install wit-bindgen-cli@0.61 --no-default-features --features c
set -eu
cd "$(dirname "$0")"
wit=$(mktemp -d)
trap 'rm -rf "$wit"' EXIT
cp world.wit "$wit"
cp -r ../wit/deps "$wit"
mkdir "$wit/deps/holm"
cp ../wit/world.wit "$wit/deps/holm"
wit-bindgen c "$wit" --out-dir "$wit/out" --no-object-file
cp "$wit/out/sdk.c" src/bindings.c
cp "$wit/out/sdk.h" include/bindings.h
sed -i 's/#include "sdk.h"/#include "bindings.h"/' src/bindings.c
# The component's type is what `holm build` adds, and not an object file to link.
sed -i '/__component_type_object_force_link/,/^}/d; /^\/\/ Ensure that the \*_component_type/d' src/bindings.c
