// Files of the project that are embedded in the binary, byte for byte. C's #embed costs nothing at build time, where
// SwiftPM's .embedInCode takes 20 s for 100 KB.
#ifndef REPRISE_EMBEDDED_FILES_H
#define REPRISE_EMBEDDED_FILES_H

#include <stddef.h>

/// openapi.yaml at the project's root: where it begins, and its length in bytes.
const unsigned char *reprise_openapi_yaml_start(void);
extern const size_t reprise_openapi_yaml_length;

/// The dashboard's files, Sources/Dashboard/page: where each begins, and its length in bytes.
const unsigned char *reprise_dashboard_html_start(void);
const unsigned char *reprise_dashboard_css_start(void);
const unsigned char *reprise_dashboard_js_start(void);
extern const size_t reprise_dashboard_html_length;
extern const size_t reprise_dashboard_css_length;
extern const size_t reprise_dashboard_js_length;

#endif
