# SPDX-License-Identifier: GPL-2.0-or-later
# trace-events -> the header with which the plug-in writes them to standard error.
BEGIN {
    print "/* Made from trace-events by trace-plugin.awk. */"
    print "#include <inttypes.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
    print "static inline bool vgpu_trace_wants(const char *name)\n{"
    print "    static const char *wish;\n"
    print "    if (wish == NULL) {\n        wish = getenv(\"VGPU_STUB_TRACE\") ?: \"\";\n    }"
    print "    return *wish && (strcmp(wish, \"1\") == 0 || strstr(name, wish) != NULL);\n}"
}
/^[a-z_]+\(/ {
    name = $0; sub(/\(.*/, "", name)
    args = $0; sub(/^[^(]*\(/, "", args); sub(/\) ".*/, "", args)
    format = $0; sub(/^[^"]*/, "", format)
    list = ""
    n = split(args, arg, ",")
    for (i = 1; i <= n; i++) {
        sub(/.*[ *]/, "", arg[i])
        list = list ", " arg[i]
    }
    printf "\nstatic inline void trace_%s(%s)\n{\n", name, args
    printf "    if (vgpu_trace_wants(\"%s\")) {\n", name
    printf "        fprintf(stderr, \"%s \" %s \"\\n\"%s);\n    }\n}\n", name, format, list
}
