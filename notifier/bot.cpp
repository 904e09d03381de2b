#include "notifier/delivery.h"
