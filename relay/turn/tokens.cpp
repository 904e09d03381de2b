#include "radiotower/turn/tokens.h"

namespace radiotower::turn {}
