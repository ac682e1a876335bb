// See context.h: nothing of this header is used.
#pragma once
