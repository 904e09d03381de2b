#include <doctest/doctest.h>

#include "radiotower/tls/identity.h"
