// Files of the project that travel inside the binary: see include/embedded.h.
#include "embedded.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const unsigned char reprise_openapi_yaml[] = {
#embed "../../openapi.yaml"
};
const size_t reprise_openapi_yaml_length = sizeof reprise_openapi_yaml;

const unsigned char *reprise_openapi_yaml_start(void) { return reprise_openapi_yaml; }
