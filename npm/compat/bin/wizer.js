#!/usr/bin/env node
'use strict'

require('@jakechampion/wizer/bin/wizer.js')
