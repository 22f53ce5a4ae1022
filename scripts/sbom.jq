# Makes a CycloneDX document of what scripts/sbom.sh has gathered.
#
# Input: the lines of `cargo tree`, each "DEPTH \t NAME vVERSION … \t LICENCE \t HOMEPAGE \t linked|build". Arguments: name and version of the
# package, its programs' crates, the time, the lock file's checksums ("NAME VERSION CHECKSUM" a line), and parts that are no
# crates, each within a crate or, where it names none, within the programs themselves.

def name_of: split(" ")[0];
def version_of: split(" ")[1] | ltrimstr("v");
# A version may have a "+", which stands for a space in a URL.
def purl: "pkg:cargo/\(.name)@\(.version | gsub("\\+"; "%2B"))";
def reference: "\(.name)@\(.version)";

($checksums | split("\n") | map(split(" ") | select(length == 3) | {key: "\(.[0])@\(.[1])", value: .[2]}) | from_entries) as $sums
| [split("\n")[] | select(length > 0) | split("\t")
    | {depth: (.[0] | tonumber), name: (.[1] | name_of), version: (.[1] | version_of), licence: .[2], page: .[3], use: .[4]}] as $lines
# A crate is linked if any of its lines says so: what a macro is made of may be in the program as well.
| ($lines | group_by(reference) | map((map(select(.use == "linked"))[0] // .[0]))) as $crates
# Who stands above whom in the tree. Lines come back to a depth, so the last one seen at each depth is the parent of the next.
| (reduce $lines[] as $line ({above: [], edges: []};
      .above = .above[:$line.depth] + [$line | reference]
      | if $line.depth > 0 then .edges += [{from: .above[$line.depth - 1], to: .above[$line.depth]}] else . end)
    | .edges | unique | group_by(.from) | map({key: .[0].from, value: map(.to)}) | from_entries) as $edges
| ($parts | map(. + {"bom-ref": reference})) as $parts
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {
      timestamp: $time,
      tools: {components: [{type: "application", name: "miharu/scripts/sbom.sh"}]},
      component: {type: "application", "bom-ref": "package:\($name)", name: $name, version: $version, licenses: [{expression: "Apache-2.0"}]},
      properties: [{name: "cdx:rustc:sbom:target:triple", value: $target}]
    },
    components: (
      [$crates[] | . as $crate | {
        type: (if ($programs | index($crate.name)) then "application" else "library" end),
        "bom-ref": reference,
        name, version,
        # In CycloneDX's words "excluded" is what helped to make a program and is no part of it.
        scope: (if .use == "linked" then "required" else "excluded" end),
        licenses: [{expression: (.licence | gsub("/"; " OR "))}],
        purl: purl
      }
      + (if $sums[reference] then {hashes: [{alg: "SHA-256", content: $sums[reference]}]} else {} end)
      + (if .page != "" then {externalReferences: [{type: "vcs", url: .page}]} else {} end)]
      + [$parts[] | del(.within) | .scope = "required"] | sort_by(."bom-ref")),
    dependencies: (
      [{ref: "package:\($name)", dependsOn: ([$crates[] | select(.name as $n | $programs | index($n)) | reference] + [$parts[] | select(.within == "") | ."bom-ref"])}]
      + [$crates[] | . as $crate | reference as $r | {ref: $r, dependsOn: ((($edges[$r] // []) + [$parts[] | select(.within == $crate.name) | ."bom-ref"]) | sort)}]
      + [$parts[] | {ref: ."bom-ref", dependsOn: []}] | sort_by(.ref))
  }
