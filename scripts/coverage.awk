# Makes tables of an lcov file. First file: paths below crates/ that are tests only, a folder with a slash behind it. Variables: root, the
# workspace's folder with a slash; lines, the file to write the lines into that never ran.

FILENAME == ARGV[1] { if (/\/$/) folders[$0]; else files[$0]; next }

/^SF:/ {
  path = substr($0, 4)
  sub("^" root, "", path)
  wanted = path ~ /^crates\// && path !~ /\/build\.rs$/ && !(path in files)
  for (folder in folders) if (index(path, folder) == 1) wanted = 0
  delete test
  if (!wanted) next
  crate = path
  sub(/^crates\//, "", crate)
  sub(/\/.*/, "", crate)
  # Tests beside the code: from `#[cfg(test)]` above a module to the brace that ends it.
  number = 0; above = 0; within = 0
  source = root path
  while ((getline line < source) > 0) {
    number++
    if (line ~ /^#\[cfg\(test\)\]/) { above = 1; test[number]; continue }
    if (above && line ~ /^(pub(\([a-z]*\))? )?mod .*\{$/) within = 1
    if (above || within) test[number]
    if (line !~ /^#\[/) above = 0
    if (within && line ~ /^}/) within = 0
  }
  close(source)
  next
}
!wanted { next }

/^DA:/ {
  split(substr($0, 4), field, ",")
  if (field[1] in test) next
  all[crate]++; all[path]++
  if (field[2] > 0) { ran[crate]++; ran[path]++ } else print path ":" field[1] >lines
}

# A branch of generic code is told once for each type: it counts once, as taken if any of them took it.
/^BRDA:/ {
  split(substr($0, 6), field, ",")
  if (field[1] in test) next
  key = path SUBSEP field[1] SUBSEP field[2] SUBSEP field[3]
  taken = field[4] != "-" && field[4] > 0
  if (!(key in branch)) { branch[key] = 0; branches[crate]++; branches[path]++ }
  if (taken && !branch[key]) { branch[key] = 1; went[crate]++; went[path]++ }
}

function share(part, whole) { return whole ? sprintf("%.1f %%", 100 * part / whole) : "–" }
function row(name, key) {
  printf "| %s | %d | %s | %d | %s |\n", name, all[key], share(ran[key], all[key]), branches[key], share(went[key], branches[key])
}

END {
  for (key in all) if (key !~ /\//) names[++count] = key
  for (i = 1; i <= count; i++) {
    all["sum"] += all[names[i]]; ran["sum"] += ran[names[i]]
    branches["sum"] += branches[names[i]]; went["sum"] += went[names[i]]
  }
  print "| crate | lines | of which ran | branches | of which were taken |"
  print "|---|---:|---:|---:|---:|"
  for (i = 1; i <= count; i++) for (j = i + 1; j <= count; j++) if (names[j] < names[i]) { swap = names[i]; names[i] = names[j]; names[j] = swap }
  for (i = 1; i <= count; i++) row("`" names[i] "`", names[i])
  row("all", "sum")
  print "\nMost lines that never ran:\n"
  for (key in all) if (key ~ /\//) printf "%6d of %5d  %s\n", all[key] - ran[key], all[key], key | "sort -rn | head -n 40"
  close("sort -rn | head -n 40")
}
