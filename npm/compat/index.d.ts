/** The path of the program `wizer`. */
declare const wizer: string

export = wizer
