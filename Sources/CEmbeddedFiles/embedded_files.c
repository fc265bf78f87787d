// Files of the project that are embedded in the binary: see include/embedded_files.h.
#include "embedded_files.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const unsigned char reprise_openapi_yaml[] = {
#embed "../../openapi.yaml"
};
const size_t reprise_openapi_yaml_length = sizeof reprise_openapi_yaml;

const unsigned char *reprise_openapi_yaml_start(void) { return reprise_openapi_yaml; }

static const unsigned char reprise_dashboard_html[] = {
#embed "../Dashboard/page/index.html"
};
static const unsigned char reprise_dashboard_css[] = {
#embed "../Dashboard/page/style.css"
};
static const unsigned char reprise_dashboard_js[] = {
#embed "../Dashboard/page/script.js"
};
const size_t reprise_dashboard_html_length = sizeof reprise_dashboard_html;
const size_t reprise_dashboard_css_length = sizeof reprise_dashboard_css;
const size_t reprise_dashboard_js_length = sizeof reprise_dashboard_js;

const unsigned char *reprise_dashboard_html_start(void) { return reprise_dashboard_html; }
const unsigned char *reprise_dashboard_css_start(void) { return reprise_dashboard_css; }
const unsigned char *reprise_dashboard_js_start(void) { return reprise_dashboard_js; }
