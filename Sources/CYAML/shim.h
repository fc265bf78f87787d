// The one header Swift sees of libyaml.
#include <yaml.h>
